"""Status lists: how long a list takes to make, its size, and when a revocation is in it."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from sqlalchemy import insert

from authz_server.app import EXTENSION, create_app
from authz_server.assembly.server import ServerServices
from authz_server.settings import load_settings
from authz_server.tokens.claims import new_jti
from authz_server.tokens.status_lists.entries import LIST_SIZE, Entry, add_entry
from authz_server.tokens.status_lists.indexes import LARGEST_BLOCK
from authz_server.tokens.status_lists.models import StatusBlock, StatusList, StatusRevocation
from authz_server.tokens.status_lists.publication import PublishedList
from bench.registered import ACTOR, SCOPE, prepare, write_settings
from bench.turns import Plan

#: The tokens in force, and the share of them that was revoked by itself.
SIZES = (1_000_000, 10_000_000)
REVOKED_SHARES = (0.0, 0.001, 0.01)
_ROWS = 5_000


def measure_status_lists(directory: Path, plan: Plan) -> Sequence[Mapping[str, Any]]:
    """Return the result of the part: one table, with a line for each size and share."""
    url = f"sqlite:///{directory}/status.sqlite"
    path = write_settings(directory, url, 8080, 8081, workers=1)
    registered = prepare(path)
    services: ServerServices = create_app(load_settings(path)).extensions[EXTENSION]
    services.feed.poll()
    rows = []
    for tokens in SIZES:
        for share in REVOKED_SHARES:
            lists = _fill(services, registered.client_id, tokens, share)
            rounds = [_measure(services, lists) for _ in range(plan.rounds)]
            names = rounds[0]
            medians = {name: median(each[name] for each in rounds) for name in names}
            print(f" {tokens:,} tokens, {share:.1%} revoked: {medians}", flush=True)
            rows.append(
                {
                    "name": f"{tokens:,} tokens",
                    "does": f"{share:.1%} revoked by themselves",
                    "medians": medians,
                    "ratios": {},
                    "rounds": rounds,
                }
            )
    table = {"kind": "status", "title": "", "rows": rows, "stopped": {}}
    return [{"title": "", "tables": [table], "not_measured": {}}]


def _fill(services: ServerServices, client_id: str, tokens: int, share: float) -> list[int]:
    """Store lists as after so many tokens of one client; return their ids."""
    random = Random(tokens)  # noqa: S311 - the same lists in each run
    ends_at = datetime.now(UTC) + timedelta(hours=1)
    now = time.time_ns() // 1_000
    lists = []
    for number in range(-(-tokens // LIST_SIZE)):
        count = min(LIST_SIZE, tokens - number * LIST_SIZE)
        with services.database.transaction() as session:
            made = StatusList(
                resource_server_id=f"bench-{tokens}-{share}",
                expires_at=ends_at,
                number=number,
                next_index=count,
                version=0,
            )
            session.add(made)
            session.flush()
            facts = {"client_id": client_id, "scopes": SCOPE, "kid": "x", "origins": ""}
            blocks = [
                {"list_id": made.id, "start": start, "size": LARGEST_BLOCK, **facts}
                for start in range(0, count, LARGEST_BLOCK)
            ]
            session.execute(
                insert(StatusBlock), [{**each, "created_microseconds": now} for each in blocks]
            )
            revoked = random.sample(range(count), int(count * share))
            for first in range(0, len(revoked), _ROWS):
                part = revoked[first : first + _ROWS]
                values = [{"list_id": made.id, "position": index} for index in part]
                session.execute(insert(StatusRevocation), values)
            lists.append(made.id)
    return lists


def _measure(services: ServerServices, lists: Sequence[int]) -> dict[str, float]:
    # As in a process that has just started: no list is in memory.
    vars(services).pop("status_lists", None)
    began = time.perf_counter()
    sizes = [len(_find(services, each).token) for each in lists]
    made = time.perf_counter()
    now = time.time_ns() // 1_000
    jti = add_entry(new_jti(now), Entry(lists[0], 7))
    before = _find(services, lists[0]).etag
    revoked_at = time.perf_counter()
    with services.database.transaction() as session:
        services.revocations.revoke_token(
            session,
            jti=jti,
            client_id="bench",
            expires_at=datetime.now(UTC) + timedelta(hours=1),
            actor=ACTOR,
        )
        # Another index each time, so that the list changes.
        session.merge(StatusRevocation(list_id=lists[0], position=now % LIST_SIZE))
    visible = _find(services, lists[0]).etag != before
    seen_at = time.perf_counter()
    if not visible:
        raise RuntimeError("the revocation is not in the list")
    return {
        "build_seconds": made - began,
        "bytes": float(sum(sizes)),
        "bytes_of_list": float(max(sizes)),
        "visible_milliseconds": (seen_at - revoked_at) * 1_000,
    }


def _find(services: ServerServices, list_id: int) -> PublishedList:
    found = services.status_lists.find(list_id)
    if found is None:
        raise RuntimeError(f"there is no list {list_id}")
    return found
