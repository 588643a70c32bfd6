"""The floor: what a Flask view costs that reads the same form and answers the same JSON.

It authenticates nobody, decides nothing, signs nothing and records nothing.
"""

from flask import Flask, Response, jsonify, request

TOKEN_FIELDS = ("grant_type", "client_id", "client_secret", "scope")
TOKEN = f"{'h' * 150}.{'p' * 400}.{'s' * 86}"
BEARER = "Bearer"

application = Flask(__name__)


@application.post("/token")
def token() -> Response:
    """Answer as a token endpoint does."""
    grant_type, client_id, client_secret, scope = (request.form[name] for name in TOKEN_FIELDS)
    assert all((grant_type, client_id, client_secret))
    response = jsonify(access_token=TOKEN, token_type=BEARER, expires_in=900, scope=scope)
    response.headers["Cache-Control"] = "no-store"
    return response


@application.post("/introspect")
def introspect() -> Response:
    """Answer as an introspection endpoint does."""
    assert all((request.form["token"], request.headers["Authorization"]))
    response = jsonify(
        active=True,
        scope="mapper/link",
        client_id="ministry",
        sub="ministry",
        aud="https://mapper.example",
        iss="https://authz.example",
        exp=1_800_000_900,
        iat=1_800_000_000,
        jti="0123456789abcdef0123456789abcdef",
        token_type=BEARER,
    )
    response.headers["Cache-Control"] = "no-store"
    return response
