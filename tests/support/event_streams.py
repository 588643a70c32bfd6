"""Event streams of the mapper: an application for their tests, and what the events state."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.parties import Credentials
from support.protocol import Protocol, running_protocol

OUTBOUND = {"plain_http": True, "allowed_networks": ["127.0.0.0/8"], "timeout_seconds": 1}


@contextmanager
def running_streams(directory: Path, database_url: str) -> Iterator[Protocol]:
    """Make an application that may push to loopback; its answers have signatures: without a twin.

    The background work pushes nothing: a test decides when a turn begins.
    """
    settings = {"outbound": OUTBOUND, "event_streams": {"keep_hours": 1, "poll_wait_seconds": 1}}
    with running_protocol(directory, database_url, **settings) as running:
        running.services.event_pusher.push = lambda: None
        yield running


def claims_of(token: str) -> dict:
    """Return the claims of a signed token."""
    return json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))


def kinds_of(tokens: list[str]) -> list[str]:
    """Return the types of events."""
    return [next(iter(claims_of(each)["events"])) for each in tokens]


def revoke(protocol: Protocol, client: Credentials | None = None) -> str:
    """Revoke a new token, and return its `jti`."""
    client = client or protocol.new_client()
    token = protocol.new_token(client)
    assert protocol.ask("revoke", client, token=token).status_code == 200
    return claims_of(token)["jti"]
