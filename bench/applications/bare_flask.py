"""The upper floor: a Flask view that reads the same form and answers the same JSON.

It authenticates no client, decides nothing, signs nothing and records nothing.
"""

from flask import Flask, Response, jsonify, request

from bench.applications.answers import INTROSPECTION, TOKEN

TOKEN_FIELDS = ("grant_type", "client_id", "client_secret", "scope")

application = Flask(__name__)


@application.post("/token")
def token() -> Response:
    """Answer as a token endpoint does."""
    grant_type, client_id, client_secret, scope = (request.form[name] for name in TOKEN_FIELDS)
    assert all((grant_type, client_id, client_secret))
    response = jsonify(TOKEN | {"scope": scope})
    response.headers["Cache-Control"] = "no-store"
    return response


@application.post("/introspect")
def introspect() -> Response:
    """Answer as an introspection endpoint does."""
    assert all((request.form["token"], request.headers["Authorization"]))
    response = jsonify(INTROSPECTION)
    response.headers["Cache-Control"] = "no-store"
    return response
