"""An authorization server as Authlib's documentation builds one on Flask and SQLAlchemy.

Clients and tokens are models with Authlib's mixins, read and stored by its own functions in each
request. BENCH_DATABASE is an SQLite URL; BENCH_TOKENS is ``stored`` (opaque tokens, the
documentation's default) or ``jwt`` (its RFC 9068 generator with ES256, which need not be stored).
"""

import os
import time
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.integrations.sqla_oauth2 import (
    OAuth2ClientMixin,
    OAuth2TokenMixin,
    create_query_client_func,
    create_query_token_func,
    create_save_token_func,
)
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, Response
from flask_sqlalchemy import SQLAlchemy
from joserfc.jwk import ECKey, KeySet
from sqlalchemy.orm import Mapped, mapped_column

from bench.applications.credentials import CLIENT_ID, CLIENT_SECRET

ISSUER = "https://authz.example"
AUDIENCE = "https://mapper.example"

db = SQLAlchemy()


class Client(db.Model, OAuth2ClientMixin):  # type: ignore[name-defined,misc]
    """A client."""

    id: Mapped[int] = mapped_column(primary_key=True)


class Token(db.Model, OAuth2TokenMixin):  # type: ignore[name-defined,misc]
    """A token that was issued."""

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int | None]


class Grant(ClientCredentialsGrant):
    """The grant, for clients that authenticate in the form."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)


class Introspection(IntrospectionEndpoint):
    """Introspection of stored tokens, for callers that authenticate by Basic."""

    CLIENT_AUTH_METHODS = ("client_secret_basic",)

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        """Return the stored token."""
        found: Token | None = create_query_token_func(db.session, Token)(
            token_string, token_type_hint
        )
        return found

    def check_permission(self, token: Token, client: Client, request: object) -> bool:
        """Permit every client."""
        del token, client, request
        return True

    def introspect_token(self, token: Token) -> dict[str, Any]:
        """Return the members of an active answer."""
        return {
            "active": not token.is_expired() and not token.is_revoked(),
            "client_id": token.client_id,
            "token_type": token.token_type,
            "scope": token.get_scope(),
            "sub": token.client_id,
            "aud": AUDIENCE,
            "iss": ISSUER,
            "exp": token.issued_at + token.expires_in,
            "iat": token.issued_at,
        }


class JwtGenerator(JWTBearerTokenGenerator):
    """Tokens by RFC 9068."""

    keys = KeySet([ECKey.generate_key("P-256", {"kid": "bench", "use": "sig"}, private=True)])

    def get_jwks(self) -> KeySet:
        """Return the signing keys, kept in memory."""
        return self.keys

    def get_audiences(self, client: Client, user: object, scope: str) -> str:
        """Return the one resource server."""
        del client, user, scope
        return AUDIENCE


def _keep_nothing(token: dict[str, Any], request: object) -> None:
    """A JWT need not be stored."""
    del token, request


def create_application(database: str, tokens: str) -> Flask:
    """Return the application; its database is made when it is not there."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = database
    db.init_app(app)
    save = create_save_token_func(db.session, Token) if tokens == "stored" else _keep_nothing
    server = AuthorizationServer(app, create_query_client_func(db.session, Client), save)
    server.register_grant(Grant)
    server.register_endpoint(Introspection)
    if tokens == "jwt":
        server.register_token_generator("default", JwtGenerator(issuer=ISSUER, alg="ES256"))

    @app.post("/oauth/token")
    def issue_token() -> Response:
        return server.create_token_response()

    @app.post("/oauth/introspect")
    def introspect_token() -> Response:
        return server.create_endpoint_response(IntrospectionEndpoint.ENDPOINT_NAME)

    with app.app_context():
        db.create_all()
        _add_clients()
    return app


def _add_clients() -> None:
    for client_id, method in ((CLIENT_ID, "client_secret_post"), ("mapper", "client_secret_basic")):
        if db.session.query(Client).filter_by(client_id=client_id).first() is not None:
            continue
        client = Client(
            client_id=client_id, client_secret=CLIENT_SECRET, client_id_issued_at=int(time.time())
        )
        client.set_client_metadata(
            {
                "grant_types": ["client_credentials"],
                "scope": "mapper/link mapper/resolve",
                "token_endpoint_auth_method": method,
            }
        )
        db.session.add(client)
    db.session.commit()


application = create_application(os.environ["BENCH_DATABASE"], os.environ["BENCH_TOKENS"])
