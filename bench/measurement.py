"""Rounds: every contender in turn, again and again, so that a noisy minute touches all alike."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.contenders import Contender
from bench.cpu_time import used_seconds
from bench.load import Load, send

_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: how often each contender is measured.
        seconds: how long each time.
        warm_up_seconds: how long each is busy before the first round.
        connections: how many are open at once, kept alive where the server does.
    """

    rounds: int
    seconds: int
    warm_up_seconds: int
    connections: int


@dataclass(frozen=True)
class Round:
    """One contender's part of one round; processor time is user and system, per request."""

    requests: int
    seconds: float
    requests_per_second: float
    p50_microseconds: int
    p99_microseconds: int
    processor_microseconds: float
    database_processor_microseconds: float | None


def measure(contenders: Sequence[Contender], plan: Plan) -> list[list[Round]]:
    """Return the rounds of each contender.

    Raises:
        UnexpectedAnswerError: any request was answered otherwise than it should be.
    """
    for contender in contenders:
        _send(contender, plan, plan.warm_up_seconds)
    rounds: list[list[Round]] = [[] for _ in contenders]
    for number in range(plan.rounds):
        for place in range(len(contenders)):
            index = (place + number) % len(contenders)
            rounds[index].append(_measure_once(contenders[index], plan))
            print(f"  round {number + 1}, {contenders[index].name}: {_short(rounds[index][-1])}")
    return rounds


def summarise(rounds: Sequence[Round], floor: Sequence[Round]) -> dict[str, Any]:
    """Return medians; the ratio is the median of each round's ratio to the floor's same round."""
    names = [name for name, value in asdict(rounds[0]).items() if value is not None]
    medians = {name: round(median(getattr(one, name) for one in rounds), 1) for name in names}
    ratios = [
        one.processor_microseconds / base.processor_microseconds
        for one, base in zip(rounds, floor, strict=True)
    ]
    return medians | {"ratio_to_floor": round(median(ratios), 2)}


def _measure_once(contender: Contender, plan: Plan) -> Round:
    server = contender.server
    before = _used([server.process_id, server.database_process_id])
    load = _send(contender, plan, plan.seconds)
    # What was under way when wrk stopped is finished before the clock is read again.
    time.sleep(0.1)
    after = _used([server.process_id, server.database_process_id])
    spent = {name: (after[name] - before[name]) * _MICROSECONDS for name in before}
    return _round(load, spent, server.process_id, server.database_process_id)


def _round(load: Load, spent: Mapping[int, float], server: int, database: int | None) -> Round:
    return Round(
        requests=load.requests,
        seconds=round(load.seconds, 3),
        requests_per_second=round(load.requests / load.seconds, 1),
        p50_microseconds=load.p50_microseconds,
        p99_microseconds=load.p99_microseconds,
        processor_microseconds=round(spent[server] / load.requests, 1),
        database_processor_microseconds=(
            None if database is None else round(spent[database] / load.requests, 1)
        ),
    )


def _used(process_ids: Iterable[int | None]) -> dict[int, float]:
    return {each: used_seconds(each) for each in process_ids if each is not None}


def _send(contender: Contender, plan: Plan, seconds: int) -> Load:
    port, request = contender.server.port, contender.request()
    return send(port, request, seconds=seconds, connections=plan.connections)


def _short(one: Round) -> str:
    return f"{one.processor_microseconds:.0f} µs, {one.requests_per_second:.0f} requests/s"
