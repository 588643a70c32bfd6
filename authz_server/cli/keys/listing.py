"""``keys list``: what is known of every key."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import json_option, print_rows, timestamp
from keys.lifecycle.rules import find_active_key
from keys.signing_key import RingSnapshot

_COLUMNS = {
    "ring": "Ring",
    "algorithm": "Algorithm",
    "version": "Version",
    "kid": "Key id",
    "state": "State",
    "signs": "Signs now",
    "published_at": "Published",
    "activate_at": "Signs from",
}
_NARROW = {
    "ring": "Ring",
    "version": "Version",
    "kid": "Key id",
    "state": "State",
    "signs": "Signs",
}


def describe_keys(ring: RingSnapshot) -> Iterator[dict[str, Any]]:
    """Yield what is known of each key of ``ring``, lowest version first."""
    active = find_active_key(ring.keys, ring.loaded_at)
    for key in ring.keys:
        yield {
            "ring": key.ring,
            "algorithm": key.alg,
            "version": key.version,
            "kid": key.kid,
            "state": key.state.value,
            "signs": active is not None and key.kid == active.kid,
            "backend": ring.backend_uri,
            "created_at": timestamp(key.created_at),
            "published_at": timestamp(key.published_at),
            "activate_at": timestamp(key.activate_at),
            "stopped_at": timestamp(key.stopped_at),
            "fenced_at": timestamp(key.fenced_at),
            "remove_after": timestamp(key.remove_after),
            "revoked_at": timestamp(key.revoked_at),
            "reason": key.reason,
        }


@click.command("list", cls=Command)
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the signing keys of every ring: public facts only."""
    with invocation.services() as services:
        offset = timedelta(seconds=services.key_store.clock_offset_seconds())
        rings = services.key_store.load_rings(services.clock() + offset)
    rows = [row for ring in rings for row in describe_keys(ring)]
    print_rows(rows, _COLUMNS, as_json=as_json, narrow=_NARROW)
