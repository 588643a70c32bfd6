"""Other authorization servers that do the same work: node-oidc-provider, Keycloak, Hydra."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.applications.credentials import CLIENT_ID
from bench.contenders import ACTIVE, ISSUED, Contender, basic, obtain_token, token_form
from bench.hydra import AUDIENCE, hydra
from bench.keycloak import REALM, keycloak
from bench.load import Request
from bench.servers import node_oidc_provider

NODE = "node-oidc-provider"
KEYCLOAK = "Keycloak"
HYDRA = "Ory Hydra"
#: What a proxy that speaks TLS passes on.
_PROXY = {"X-Forwarded-Proto": "https"}
_KEYCLOAK_TOKEN = f"/realms/{REALM}/protocol/openid-connect/token"


def node_tokens(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield node-oidc-provider issuing JWTs."""
    server, secret = running.enter_context(node_oidc_provider(folder))
    form = token_form(CLIENT_ID, secret, resource=AUDIENCE)
    request = Request("/token", form, ISSUED, _PROXY, distinct=True)
    yield Contender(NODE, "JWT ES256; one process, in memory", server, lambda: request)


def node_introspection(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield node-oidc-provider introspecting an opaque token: it introspects no JWT."""
    server, secret = running.enter_context(node_oidc_provider(folder))

    def introspection() -> Request:
        token = obtain_token(server, "/token", token_form(CLIENT_ID, secret), **_PROXY)
        caller = basic("mapper", secret, **_PROXY)
        return Request("/token/introspection", {"token": token}, ACTIVE, caller)

    yield Contender(NODE, "opaque, from memory; one process", server, introspection)


def keycloak_tokens(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield Keycloak issuing JWTs."""
    server, secret = running.enter_context(keycloak(folder))
    form = token_form(CLIENT_ID, secret)
    request = Request(_KEYCLOAK_TOKEN, form, ISSUED, _PROXY, distinct=True)
    does = "JWT ES256; H2 in its memory"
    yield Contender(KEYCLOAK, does, server, lambda: request, compiles_just_in_time=True)


def keycloak_introspection(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield Keycloak introspecting a JWT."""
    server, secret = running.enter_context(keycloak(folder))

    def introspection() -> Request:
        token = obtain_token(server, _KEYCLOAK_TOKEN, token_form(CLIENT_ID, secret), **_PROXY)
        caller = basic("mapper", secret, **_PROXY)
        return Request(f"{_KEYCLOAK_TOKEN}/introspect", {"token": token}, ACTIVE, caller)

    does = "JWT ES256; H2 in its memory"
    yield Contender(KEYCLOAK, does, server, introspection, compiles_just_in_time=True)


def hydra_tokens(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield Hydra issuing JWTs; it checks secrets by PBKDF2 at its default cost."""
    started = running.enter_context(hydra(folder))
    form = token_form(CLIENT_ID, started.secret, audience=AUDIENCE)
    request = Request("/oauth2/token", form, ISSUED, distinct=True)
    does = "JWT ES256, secret by PBKDF2; SQLite in its memory"
    yield Contender(HYDRA, does, started.public, lambda: request)


def hydra_introspection(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield Hydra introspecting a JWT; its listener for that authenticates no caller."""
    started = running.enter_context(hydra(folder))

    def introspection() -> Request:
        form = token_form(CLIENT_ID, started.secret, audience=AUDIENCE)
        token = obtain_token(started.public, "/oauth2/token", form)
        caller = basic("mapper", started.secret)
        return Request("/admin/oauth2/introspect", {"token": token}, ACTIVE, caller)

    does = "JWT ES256, caller not authenticated; SQLite in its memory"
    yield Contender(HYDRA, does, started.admin, introspection)
