"""Closed loop: a number of connections, each of which sends as soon as it has its answer."""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.contenders import BARE_FLASK, BARE_WSGI, Contender
from bench.free_cores import FreeCores
from bench.load import Load, Request, UnexpectedAnswerError, send
from bench.peers import NODE
from bench.turns import Plan, Taken, Turn, take_rounds

#: What a ratio compares with, by its name in the result.
BASES: Mapping[str, str] = {
    "bare_wsgi": BARE_WSGI,
    "bare_flask": BARE_FLASK,
    "node_oidc_provider": NODE,
}
#: Above this share of one core the load generator limits the number of requests.
_GENERATOR_LIMIT = 0.95
#: Above this share of the answers, requests under way at the end of a turn make its cost doubtful.
_UNFINISHED_LIMIT = 0.05
#: A turn in which every request is another one ends early when it has sent this many a second.
_FRESH_REQUESTS_PER_SECOND = 6_000

Table = dict[str, Any]
Measure = Callable[[Sequence[Contender], Plan, FreeCores], list[Table]]


@dataclass(frozen=True)
class Round:
    """One contender's turn in one round; processor time is user and system, per request."""

    requests: int
    seconds: float
    requests_per_second: float
    p50_microseconds: int
    p99_microseconds: int
    processor_microseconds: float
    database_processor_microseconds: float | None
    generator_cores: float
    others_cores: float


def closed_loop(
    connections: Sequence[int], *, new_connections: bool = False, kind: str = "closed"
) -> Measure:
    """Return what makes one table for each number of connections.

    Args:
        connections: how many are open at once.
        new_connections: open one for each request.
        kind: of the tables, which decides their columns.
    """

    def measure(contenders: Sequence[Contender], plan: Plan, cores: FreeCores) -> list[Table]:
        return [
            {"kind": kind, **_measure(contenders, count, plan, cores, new_connections)}
            for count in connections
        ]

    return measure


def _measure(
    contenders: Sequence[Contender],
    connections: int,
    plan: Plan,
    cores: FreeCores,
    new_connections: bool,  # noqa: FBT001 - one private caller
) -> Table:
    print(f" {connections} connections{', a new one per request' if new_connections else ''}:")

    with tempfile.TemporaryDirectory(prefix="authz-server-bench-") as folder:
        file = Path(folder, "requests")

        def turn(contender: Contender) -> Turn[Load]:
            ready: list[Request] = []

            def prepare(seconds: int) -> None:
                request = contender.request().prepare(seconds * _FRESH_REQUESTS_PER_SECOND, file)
                ready[:] = [request.closing() if new_connections else request]

            def run(seconds: int) -> Load:
                port = contender.server.port
                return send(port, ready[0], seconds=seconds, connections=connections)

            def warm_up() -> None:
                prepare(plan.warm_up_seconds)
                run(plan.warm_up_seconds)

            return Turn(
                contender.name,
                contender.server.process_ids,
                warm_up,
                lambda: run(plan.seconds),
                lambda: prepare(plan.seconds),
            )

        result = take_rounds([turn(each) for each in contenders], plan.rounds, cores)
    rounds = {
        each.name: [_round(each, taken) for taken in result.taken[each.name]]
        for each in contenders
        if each.name in result.taken
    }
    manner = ", a new connection for each request" if new_connections else ""
    return {
        "title": f"{connections} connections{manner}",
        "connections": connections,
        "rows": make_rows(contenders, rounds),
        "stopped": dict(result.stopped),
        "limited_by_generator": _limited(rounds),
        "unfinished": _unfinished(rounds, connections),
    }


def warm_up_compilers(contenders: Iterable[Contender], plan: Plan) -> None:
    """Keep those busy that compile their code while it runs, each for the plan's time.

    An unexpected answer is ignored: the rounds meet it again, and name it.
    """
    for contender in contenders:
        if contender.compiles_just_in_time:
            print(f" warming up {contender.name} for {plan.jit_warm_up_seconds} s", flush=True)
            deadline = time.monotonic() + plan.jit_warm_up_seconds
            while (left := deadline - time.monotonic()) > 1:
                with suppress(UnexpectedAnswerError):
                    port, request = contender.server.port, contender.request()
                    send(port, request, seconds=min(30, int(left)), connections=8)


def _round(contender: Contender, taken: Taken[Load]) -> Round:
    load, server = taken.value, contender.server
    database = server.database_process_id
    return Round(
        requests=load.requests,
        seconds=round(load.seconds, 3),
        requests_per_second=round(load.requests_per_second, 1),
        p50_microseconds=load.p50_microseconds,
        p99_microseconds=load.p99_microseconds,
        processor_microseconds=taken.processor_microseconds(server.process_id, load.requests),
        database_processor_microseconds=(
            None if database is None else taken.processor_microseconds(database, load.requests)
        ),
        generator_cores=round(load.generator_seconds / load.seconds, 2),
        others_cores=taken.others_cores,
    )


def make_rows(
    contenders: Sequence[Contender], rounds: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    """Return the lines of a table: medians of the rounds, and ratios of processor time.

    A ratio is the median of the ratios of each round to the base's same round.

    Args:
        contenders: in the order of the table.
        rounds: of each contender that has a result; data classes.
    """
    return [
        {
            "name": each.name,
            "does": each.does,
            "start_seconds": each.server.start_seconds,
            "medians": medians(rounds[each.name]) | _added(each, rounds),
            "ratios": _ratios(rounds[each.name], rounds, {**BASES, **each.bases}),
            "rounds": [asdict(one) for one in rounds[each.name]],
        }
        for each in contenders
        if each.name in rounds
    ]


def medians(rounds: Sequence[Any]) -> dict[str, float]:
    """Return the median of every field that has a value in each round."""
    values = [asdict(one) for one in rounds]
    names = [name for name in values[0] if all(one[name] is not None for one in values)]
    return {name: round(median(one[name] for one in values), 3) for name in names}


def _added(contender: Contender, rounds: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """Return the processor time beside that of the floor, if the contender has one."""
    floor = rounds.get(contender.bases.get("floor", ""))
    if floor is None:
        return {}
    pairs = zip(rounds[contender.name], floor, strict=True)
    each = [one.processor_microseconds - least.processor_microseconds for one, least in pairs]
    return {"added_microseconds": round(median(each), 1)}


def _ratios(
    own: Sequence[Any], rounds: Mapping[str, Sequence[Any]], bases: Mapping[str, str]
) -> dict[str, float]:
    ratios = {}
    for key, base in bases.items():
        if base in rounds:
            pairs = zip(own, rounds[base], strict=True)
            each = [
                one.processor_microseconds / other.processor_microseconds for one, other in pairs
            ]
            ratios[key] = round(median(each), 2)
    return ratios


def _limited(rounds: Mapping[str, Sequence[Round]]) -> list[str]:
    return [
        name
        for name, own in rounds.items()
        if median(one.generator_cores for one in own) >= _GENERATOR_LIMIT
    ]


def _unfinished(rounds: Mapping[str, Sequence[Round]], connections: int) -> dict[str, float]:
    """Return whose cost may include much of requests that were not answered, and how much."""
    shares = {
        name: round(connections / median(one.requests for one in own), 2)
        for name, own in rounds.items()
    }
    return {name: share for name, share in shares.items() if share > _UNFINISHED_LIMIT}
