"""Ways of a client to authenticate and to bind its tokens: ours, and node-oidc-provider's."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from authz_server.assembly import Services
from bench import servers
from bench.applications.credentials import CLIENT_ID
from bench.contenders import ISSUED, Contender, Setting, basic, start_ours, token_form
from bench.hydra import AUDIENCE
from bench.load import Fresh, Request
from bench.peers import NODE
from bench.registered import ACTOR, ISSUER, SCOPE
from bench.servers import Server
from support.assertions import Signer, jwks_of, new_key
from support.client_certificates import SUBJECT, ClientAuthority, header_value
from support.dpop import ProofKey

POST, BASIC, TLS = "client_secret_post", "client_secret_basic", "tls_client_auth"
ES256, PS256 = "private_key_jwt ES256", "private_key_jwt PS256"
HS256 = "client_secret_jwt HS256"
DPOP, DPOP_ES256 = "DPoP ES256", "private_key_jwt ES256, DPoP ES256"
#: The ids of the clients that sign, by their algorithm.
_SIGNERS = {"ES256": "signer-es256", "PS256": "signer-ps256", "HS256": "signer-hs256"}
_CERTIFIED = "certified"
#: What a proxy that speaks TLS passes on.
_PROXY = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"}


def _new_keys() -> dict[str, object]:
    return {alg: new_key(alg) for alg in ("ES256", "PS256")}


@dataclass(frozen=True)
class Endpoint:
    """A token endpoint: its path, its URL in proofs, and further fields of its forms."""

    path: str
    url: str
    more: Mapping[str, str] = field(default_factory=dict)

    def request(
        self,
        form: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        fresh: Callable[[], Fresh] | None = None,
    ) -> Request:
        """Return a request for a token."""
        sent, fields = {**_PROXY, **(headers or {})}, {**form, **self.more}
        return Request(self.path, fields, ISSUED, sent, distinct=True, fresh=fresh)


def _requests(
    endpoint: Endpoint, client: tuple[str, str], keys: Mapping[str, object]
) -> dict[str, Request]:
    """Return the request by each method that takes no certificate.

    Args:
        endpoint: where to.
        client: the id and the secret of the client that sends it.
        keys: those of the clients that sign, by the algorithm.
    """
    form, proof_key = token_form(*client), ProofKey()
    asking = {name: form[name] for name in ("grant_type", "scope")}

    def sign(alg: str) -> Callable[[], Mapping[str, str]]:
        signer = Signer(_SIGNERS[alg], keys[alg], time.time, alg)
        return lambda: signer.form(signer.assertion(aud=ISSUER))

    def prove() -> str:
        return proof_key.prove(time.time(), htu=endpoint.url)

    es256, ps256, hs256 = map(sign, _SIGNERS)
    return {
        POST: endpoint.request(form),
        BASIC: endpoint.request(asking, basic(*client)),
        ES256: endpoint.request(asking, fresh=lambda: Fresh(es256())),
        PS256: endpoint.request(asking, fresh=lambda: Fresh(ps256())),
        HS256: endpoint.request(asking, fresh=lambda: Fresh(hs256())),
        DPOP: endpoint.request(form, fresh=lambda: Fresh({}, prove())),
        DPOP_ES256: endpoint.request(asking, fresh=lambda: Fresh(es256(), prove())),
    }


def our_clients(database: str) -> Setting:
    """Return ours with every method, on ``SQLite`` or ``PostgreSQL``."""

    def setting(running: ExitStack, folder: Path) -> Iterator[Contender]:
        keys = _new_keys()
        server, registered, name = start_ours(
            running, folder, database, register=lambda services: _register(services, keys)
        )
        endpoint = Endpoint("/oauth2/token", f"{ISSUER}/oauth2/token")
        client = registered.client_id, registered.client_secret
        requests = _requests(endpoint, client, keys)
        form = {"grant_type": "client_credentials", "scope": SCOPE, "client_id": _CERTIFIED}
        certificate = header_value("nginx", ClientAuthority().issue(SUBJECT).der)
        requests[TLS] = endpoint.request(form, certificate)
        yield from _contenders(name, "its use stored and committed", server, requests)

    return setting


def _register(services: Services, keys: dict[str, object]) -> None:
    """Register the other clients, and add the secret of the one that signs with it to the keys."""
    registered = {
        _SIGNERS[alg]: ("private_key_jwt", {"jwks": jwks_of(key)}) for alg, key in keys.items()
    }
    registered[_SIGNERS["HS256"]] = ("client_secret_jwt", {})
    registered[_CERTIFIED] = (TLS, {"tls_client_auth_subject_dn": SUBJECT})
    with services.transaction() as session:
        for client_id, (method, properties) in registered.items():
            services.clients.create_client(
                session,
                actor=ACTOR,
                id=client_id,
                name=client_id,
                authentication_method=method,
                allowed_scopes=[SCOPE],
                properties=properties,
            )
        signer = _SIGNERS["HS256"]
        _, keys["HS256"] = services.clients.add_secret(session, signer, actor=ACTOR)


def node_clients(running: ExitStack, folder: Path) -> Iterator[Contender]:
    """Yield node-oidc-provider with each method but certificates."""
    keys = _new_keys()
    metadata = [
        {
            "client_id": _SIGNERS[alg],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": jwks_of(key, alg=alg, use="sig"),
        }
        for alg, key in keys.items()
    ]
    metadata += [
        {"client_id": _SIGNERS["HS256"], "token_endpoint_auth_method": "client_secret_jwt"},
        {"client_id": f"{CLIENT_ID}-basic", "token_endpoint_auth_method": BASIC},
    ]
    serving = servers.node_oidc_provider(folder, json.dumps(metadata))
    server, secret = running.enter_context(serving)
    keys["HS256"] = secret
    url = f"https://127.0.0.1:{server.port}/token"
    endpoint = Endpoint("/token", url, {"resource": AUDIENCE})
    requests = _requests(endpoint, (CLIENT_ID, secret), keys)
    # Each client has one method there.
    headers = {**_PROXY, **basic(f"{CLIENT_ID}-basic", secret)}
    requests[BASIC] = replace(requests[BASIC], headers=headers)
    yield from _contenders(NODE, "its use kept in memory", server, requests)


def _contenders(
    name: str, use: str, server: Server, requests: Mapping[str, Request]
) -> Iterator[Contender]:
    for method, request in requests.items():
        bases = {"form_secret": f"{name}, {POST}", "node_oidc_provider": f"{NODE}, {method}"}
        does = "JWT ES256" if request.fresh is None else f"JWT ES256; {use}"
        yield Contender(
            f"{name}, {method}", does, server, lambda request=request: request, bases=bases
        )
