"""A minimal resource server: ``POST /mapper/link``, protected by introspection.

``python -m authz_server.cli.demo.mapper_api FILE`` serves it with the configuration in a JSON file.
It uses no code of the authorization server, only its HTTP interface.
"""

import base64
import http.client
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

SCOPE = "mapper/link"
TIMEOUT_SECONDS = 5
MAXIMUM_BODY_BYTES = 65_536


@dataclass(frozen=True)
class Configuration:
    """The configuration of the resource server.

    Args:
        port: the port on loopback.
        identifier: its URI, the audience of its tokens.
        introspection_url: the introspection endpoint (RFC 7662).
        client_id: its credentials at that endpoint.
        client_secret: likewise.
    """

    port: int
    identifier: str
    introspection_url: str
    client_id: str
    client_secret: str


def introspect(configuration: Configuration, token: str) -> dict[str, object]:
    """Introspect a token at the authorization server.

    Returns:
        The response (RFC 7662, 2.2); ``{"active": False}`` for a token that must not be accepted.

    Raises:
        OSError: the server did not answer, or not with 200.
    """
    url = urlsplit(configuration.introspection_url)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.netloc, timeout=TIMEOUT_SECONDS)
    credentials = f"{configuration.client_id}:{configuration.client_secret}".encode()
    headers = {
        "Authorization": f"Basic {base64.b64encode(credentials).decode()}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    try:
        connection.request("POST", url.path, urlencode({"token": token}), headers)
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            raise OSError(f"the authorization server answered {answer.status}")
        described = json.loads(answer.read())
    except (http.client.HTTPException, ValueError) as error:
        raise OSError("the authorization server's answer cannot be read") from error
    finally:
        connection.close()
    return described if isinstance(described, dict) else {"active": False}


def create_mapper_api(configuration: Configuration) -> Flask:
    """Return the application."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAXIMUM_BODY_BYTES

    @app.post("/mapper/link")
    def link() -> Response:
        refusal = _check_token(configuration)
        if refusal is not None:
            return refusal
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return jsonify({"message": {"ack_status": "ACK", "timestamp": now}})

    return app


def _check_token(configuration: Configuration) -> Response | None:
    """Return the refusal of the present request, or None if its token permits it."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return _refuse(HTTPStatus.UNAUTHORIZED, "", "A bearer token is required.")
    try:
        described = introspect(configuration, token.strip())
    except OSError:
        return _refuse(HTTPStatus.SERVICE_UNAVAILABLE, "", "Tokens cannot be checked now.")
    audience = described.get("aud", [])
    audience = audience if isinstance(audience, list) else [audience]
    if described.get("active") is not True or configuration.identifier not in audience:
        return _refuse(
            HTTPStatus.UNAUTHORIZED, "invalid_token", "The token is not valid here, or no longer."
        )
    if SCOPE not in str(described.get("scope", "")).split(" "):
        return _refuse(
            HTTPStatus.FORBIDDEN, "insufficient_scope", f"The token lacks the scope {SCOPE}."
        )
    return None


def _refuse(status: HTTPStatus, error: str, message: str) -> Response:
    """Return a refusal with its challenge (RFC 6750, 3) and the body of G2P Connect."""
    answer = jsonify({"errors": [{"code": error or status.phrase, "message": message}]})
    answer.status_code = status
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        details = f' error="{error}", scope="{SCOPE}"' if error else f' scope="{SCOPE}"'
        answer.headers["WWW-Authenticate"] = f"Bearer{details}"
    return answer


def main() -> None:
    """Serve on loopback until terminated."""
    configuration = Configuration(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    app = create_mapper_api(configuration)
    make_server("127.0.0.1", configuration.port, app, threaded=True).serve_forever()


if __name__ == "__main__":
    main()
