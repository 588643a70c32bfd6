"""Clients that publish their keys at an address (`jwks_uri`), fetched over TLS."""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from support.assertions import Signer, jwks_of, make_signer, new_key
from support.client_certificates import ClientAuthority
from support.protocol import ENDPOINTS, Protocol, require_refusal, running_protocol
from support.scripted_server import ScriptedServer, answer_with

FIRST, SECOND = new_key(), new_key()


class Site:
    """A server of keys, and an application that may fetch from it."""

    def __init__(self, directory: Path) -> None:
        authority = ClientAuthority()
        issued = authority.issue(
            "CN=keys",
            names=[x509.IPAddress(IPv4Address("127.0.0.1"))],
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
        )
        (directory / "authority.pem").write_bytes(authority.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.write(directory, "server"))
        self.document = b""
        self.server = ScriptedServer(self._answer, tls=context)

    def _answer(self, connection, request: bytes) -> bool:
        return answer_with(self.document)(connection, request)

    def publish(self, **keys: object) -> None:
        listed = [jwks_of(key, kid=kid)["keys"][0] for kid, key in keys.items()]
        self.document = json.dumps({"keys": listed}).encode()


@contextmanager
def running_site(directory: Path, database_url: str, **outbound) -> Iterator[tuple[Site, Protocol]]:
    site = Site(directory)
    settings = {"ca_file": "authority.pem", "allowed_networks": ["127.0.0.0/8"]} | outbound
    with site.server, running_protocol(directory, database_url, outbound=settings) as protocol:
        yield site, protocol


def new_signer(protocol: Protocol, address: str, key: object, kid: str | None) -> Signer:
    clock = protocol.clock
    made = make_signer(
        protocol.parties,
        "publisher",
        lambda: clock().timestamp(),
        properties={"jwks_uri": address},
    )
    return Signer(made.id, key, made.now, kid=kid)


def reason(protocol: Protocol) -> str:
    return json.loads(protocol.audit_trail().splitlines()[-1])["reason"]


def test_keys_are_fetched_once_for_any_number_of_requests(tmp_path: Path, database_url: str):
    """Cases D40, D51."""
    with running_site(tmp_path, database_url) as (site, protocol):
        site.publish(first=FIRST, second=SECOND)
        signer = new_signer(protocol, f"{site.server.address}/jwks.json", FIRST, "first")
        other = Signer(signer.id, SECOND, signer.now, kid="second")
        for endpoint in ENDPOINTS:
            form = signer.form()
            request = protocol.form(endpoint) | form
            assert protocol.post(endpoint, request).status_code == 200
            require_refusal(protocol.post(endpoint, request), 401, "invalid_client", endpoint)
            assert (
                protocol.post(endpoint, protocol.form(endpoint) | other.form()).status_code == 200
            )
        assert site.server.connections == 1
        for number in range(200):
            random = Signer(signer.id, FIRST, signer.now, kid=f"random-{number}")
            require_refusal(protocol.ask("token", random), 401, "invalid_client")
        forged = Signer(signer.id, new_key(), signer.now, kid="first")
        require_refusal(protocol.ask("token", forged), 401, "invalid_client")
        assert reason(protocol) == "assertion_signature"
        # The first of these may have fetched again; for a time, no other does.
        assert site.server.connections <= 2


def test_a_key_that_is_replaced_under_its_id_counts_before_the_cache_ends(
    tmp_path: Path, database_url: str
):
    """Its signatures have the set fetched again, at most once in the shortest time."""
    with running_site(tmp_path, database_url, minimum_cache_seconds=1) as (site, protocol):
        site.publish(same=FIRST)
        signer = new_signer(protocol, f"{site.server.address}/jwks.json", FIRST, "same")
        assert protocol.ask("token", signer).status_code == 200
        site.publish(same=SECOND)
        replaced = Signer(signer.id, SECOND, signer.now, kid="same")
        for endpoint in ENDPOINTS:
            time.sleep(1.1)
            request = protocol.form(endpoint) | replaced.form()
            assert protocol.post(endpoint, request).status_code == 200
            require_refusal(protocol.ask(endpoint, signer), 401, "invalid_client", endpoint)
            assert reason(protocol) == "assertion_signature"
        connections = site.server.connections
        forged = Signer(signer.id, new_key(), signer.now, kid="same")
        for _ in range(50):
            require_refusal(protocol.ask("token", forged), 401, "invalid_client")
        assert site.server.connections <= connections + 2


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"", "assertion_keys_unavailable"),
        (b"<html>", "assertion_keys_unavailable"),
        (b'{"keys": []}', "assertion_key_unknown"),
        (json.dumps({"keys": [FIRST.as_dict(private=True)]}).encode(), "assertion_key_unknown"),
    ],
)
def test_an_address_without_usable_keys(tmp_path, sqlite_url, document: bytes, expected: str):
    """Case D55: a published private key proves nothing."""
    with running_site(tmp_path, sqlite_url) as (site, protocol):
        site.document = document
        signer = new_signer(protocol, f"{site.server.address}/jwks.json", FIRST, None)
        require_refusal(protocol.ask("token", signer), 401, "invalid_client")
        assert reason(protocol) == expected


def test_an_address_that_points_inward_is_not_connected_to(tmp_path: Path, sqlite_url: str):
    """Case H92."""
    with running_site(tmp_path, sqlite_url, allowed_networks=[]) as (site, protocol):
        site.publish(first=FIRST)
        signer = new_signer(protocol, f"{site.server.address}/jwks.json", FIRST, "first")
        for endpoint in ENDPOINTS:
            answer = protocol.ask(endpoint, signer)
            require_refusal(answer, 401, "invalid_client", endpoint)
            assert reason(protocol) == "assertion_keys_unavailable"
        assert site.server.connections == 0
