"""A process that fetches too many documents at a time: its clients are told to try again."""

import json
from collections.abc import Callable
from functools import partial

import pytest

from authz_server.clients.exchanges import BusyError, Exchanges
from authz_server.endpoints import refusals
from support.assertions import JWT_BEARER, jwks_of
from support.client_id_documents import KEY, Site, publishing_keys, running_site
from support.issuers import Issuers
from support.parties import ACTOR
from support.protocol import ENDPOINTS, Protocol, require_refusal, running_protocol

#: One failure more would be refused as one of a guesser.
THROTTLED = {"failures_per_window": 1}
SUBJECT = "repo:ministry/payments"


@pytest.fixture
def keep_busy(monkeypatch) -> Callable[[str], None]:
    """A function that leaves no room for fetches of an origin, or of none."""
    busy, usual = [""], Exchanges._place_of  # noqa: SLF001 - no room for an origin

    def place_of(exchanges: Exchanges, origin: str):
        if origin == busy[0]:
            raise BusyError("too many documents of this origin are being fetched")
        return usual(exchanges, origin)

    monkeypatch.setattr(Exchanges, "_place_of", place_of)
    # Each refusal has a record of its own: the test reads the last one.
    monkeypatch.setattr(refusals, "SINGLE_OF_A_KIND", 1_000)
    return lambda origin: busy.__setitem__(0, origin)


def require_another_try(protocol: Protocol, ask: Callable[[str], object]) -> None:
    """Check that each endpoint asks for another try, and counts no failure."""
    for _ in range(3):
        for endpoint in ENDPOINTS:
            answer = ask(endpoint)
            require_refusal(answer, 503, "temporarily_unavailable", endpoint)
            assert int(answer.headers["Retry-After"]) >= 1
            record = json.loads(protocol.audit_trail().splitlines()[-1])
            assert record["reason"] == "temporarily_unavailable"


def test_a_client_whose_document_or_keys_wait_is_not_refused(sqlite_url, tmp_path, keep_busy):
    with (
        publishing_keys(tmp_path, jwks_of(KEY)) as keys,
        running_site(
            tmp_path, sqlite_url, outbound={"ca_file": "authority.pem"}, clients=THROTTLED
        ) as site,
    ):
        uri = f"{keys.address}/keys"
        client_id = site.publisher.publish("/erp", without="jwks", jwks_uri=uri)
        with site.protocol.parties.change() as (services, session):
            services.clients.create_client(
                session,
                actor=ACTOR,
                id="payer",
                name="payer",
                authentication_method="private_key_jwt",
                allowed_scopes=["mapper/link"],
                properties={"jwks_uri": uri},
            )
        waits_for_each(site, keep_busy, {site.publisher.origin: client_id, keys.address: client_id})
        waits_for_each(site, keep_busy, {keys.address: "payer"})


def ask_as(site: Site, client_id: str, endpoint: str):
    return site.ask(endpoint, client_id)


def waits_for_each(site: Site, keep_busy, clients: dict[str, str]) -> None:
    """Let an origin be busy, and then not."""
    for origin, client_id in clients.items():
        keep_busy(origin)
        site.protocol.services.key_sets._fetcher._documents.clear()  # noqa: SLF001 - unread
        require_another_try(site.protocol, partial(ask_as, site, client_id))
    keep_busy("")
    assert site.token(client_id)


def test_a_workload_whose_issuers_keys_wait_is_not_refused(sqlite_url, tmp_path, keep_busy):
    with (
        Issuers(tmp_path) as issuers,
        running_protocol(tmp_path, sqlite_url, clients=THROTTLED, **issuers.settings()) as protocol,
    ):
        issuers.clock = protocol.clock
        protocol.parties.import_scopes()
        with protocol.parties.change() as (services, session):
            services.clients.create_client(
                session,
                actor=ACTOR,
                id="job",
                name="job",
                authentication_method="workload_identity",
                allowed_scopes=["mapper/link"],
                properties={"workload_identities": [{"issuer": "provider", "subject": SUBJECT}]},
            )

        def ask(endpoint: str):
            assertion = issuers.provider_signer(SUBJECT).assertion()
            sent = {"client_assertion_type": JWT_BEARER, "client_assertion": assertion}
            return protocol.post(endpoint, protocol.form(endpoint) | sent)

        keep_busy(issuers.provider)
        require_another_try(protocol, ask)
        keep_busy("")
        assert ask("token").status_code == 200
