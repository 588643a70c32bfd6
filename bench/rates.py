"""Open loop: latency at a share of the capacity, and behaviour above the capacity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.arrivals import (
    BROKEN,
    GIVEN_UP,
    NO_CONNECTION,
    REFUSED,
    SERVED,
    Arrival,
    Phase,
    build_generator,
    send_arrivals,
)
from bench.contenders import Contender
from bench.free_cores import FreeCores
from bench.load import UnexpectedAnswerError
from bench.measurement import Table, closed_loop, make_rows
from bench.servers import NotAtHandError
from bench.turns import Plan, Taken, Turn, take_rounds

#: With how many connections the capacity is measured.
CAPACITY_CONNECTIONS = 64
SHARE = 0.8
OVERLOAD = 5.0
_SHARE_BEFORE = 0.5
_SHARE_AFTERWARDS = 0.5
_SECONDS_AFTERWARDS = 12
#: An answer is late if it takes longer than so many times the usual p99.
LATE = 10
_MICROSECONDS = 1_000_000
_WINDOW_MICROSECONDS = 250_000
_OUTCOMES = {
    SERVED: "answered",
    REFUSED: "refused by 503",
    GIVEN_UP: "given up",
    NO_CONNECTION: "without a free connection",
    BROKEN: "with a broken connection",
}
#: The arrivals of each phase.
Phases = list[list[Arrival]]


@dataclass(frozen=True)
class LatencyRound:
    """One turn at a share of the capacity; times from when a request was to be sent."""

    rate: float
    requests: int
    p50_microseconds: float
    p99_microseconds: float
    p99_to_p50: float
    lateness_p99_microseconds: float
    processor_microseconds: float
    others_cores: float


@dataclass(frozen=True)
class OverloadRound:
    """One turn above the capacity; times from when a request was sent, None if there were none."""

    capacity: float
    offered: float
    goodput: float
    share_of_capacity: float
    refused: float
    unanswered: float
    given_up: float
    broken: float
    without_connection: float
    refused_p50_microseconds: float | None
    refused_p99_microseconds: float | None
    usual_p99_microseconds: float
    served_p99_microseconds: float | None
    served_p99_to_usual: float | None
    lateness_p99_microseconds: float
    recovery_seconds: float
    processor_microseconds: float
    others_cores: float


def latency(contenders: Sequence[Contender], plan: Plan, cores: FreeCores) -> list[Table]:
    """Measure capacities, then the time to answer at a share of them."""

    def run(contender: Contender, capacity: float) -> Phases:
        phases = [
            # Opens connections, which a service in use has.
            Phase(_SHARE_BEFORE * capacity, plan.warm_up_seconds),
            Phase(SHARE * capacity, plan.seconds),
        ]
        arrivals = send_arrivals(contender.server.port, contender.request(), phases)
        for phase in arrivals:
            if any(each.outcome != SERVED for each in phase):
                raise UnexpectedAnswerError(_outcomes(phase))
        return arrivals

    title = f"At {SHARE:.0%} of the capacity"
    return _Experiment("latency", title, run, _describe_latency).measure(contenders, plan, cores)


def overload(contenders: Sequence[Contender], plan: Plan, cores: FreeCores) -> list[Table]:
    """Measure capacities, then what happens at a multiple of them and afterwards."""

    def run(contender: Contender, capacity: float) -> Phases:
        phases = [
            Phase(SHARE * capacity, plan.seconds),
            Phase(OVERLOAD * capacity, plan.seconds),
            Phase(_SHARE_AFTERWARDS * capacity, _SECONDS_AFTERWARDS),
        ]
        return send_arrivals(contender.server.port, contender.request(), phases)

    title = f"Offered {OVERLOAD:.0f} times the capacity"
    return _Experiment("overload", title, run, _describe_overload).measure(contenders, plan, cores)


@dataclass(frozen=True)
class _Experiment:
    """A measurement at rates that follow from each contender's capacity.

    Attributes:
        kind: of the table.
        title: of the table.
        run: takes one turn at a capacity.
        describe: makes a round of what was taken.
    """

    kind: str
    title: str
    run: Callable[[Contender, float], Phases]
    describe: Callable[[Contender, float, Taken[Phases]], Any]

    def measure(self, contenders: Sequence[Contender], plan: Plan, cores: FreeCores) -> list[Table]:
        """Return the table of the capacities and that of the rates which follow from them."""
        table: Table = {"kind": self.kind, "title": self.title, "rows": []}
        try:
            build_generator()
        except NotAtHandError as reason:
            return [table | {"stopped": {"all": str(reason)}}]
        [capacity_table] = closed_loop([CAPACITY_CONNECTIONS])(contenders, plan, cores)
        capacity_table["title"] = f"Capacity: {capacity_table['title']}"
        capacities = {
            row["name"]: row["medians"]["requests_per_second"] for row in capacity_table["rows"]
        }
        print(f" {self.title}:")
        measured = [each for each in contenders if each.name in capacities]
        turns = [self._turn(each, capacities[each.name]) for each in measured]
        result = take_rounds(turns, plan.rounds, cores)
        rounds = {
            each.name: [
                self.describe(each, capacities[each.name], taken)
                for taken in result.taken[each.name]
            ]
            for each in measured
            if each.name in result.taken
        }
        rows = make_rows(measured, rounds)
        return [capacity_table, table | {"rows": rows, "stopped": dict(result.stopped)}]

    def _turn(self, contender: Contender, capacity: float) -> Turn[Phases]:
        return Turn(
            contender.name,
            contender.server.process_ids,
            lambda: None,
            lambda: self.run(contender, capacity),
        )


def _describe_latency(contender: Contender, capacity: float, taken: Taken[Phases]) -> LatencyRound:
    before, arrivals = taken.value
    times = [each.lateness + each.took for each in arrivals]
    p50, p99 = _quantile(times, 0.5), _quantile(times, 0.99)
    root = contender.server.process_id
    return LatencyRound(
        rate=round(SHARE * capacity, 1),
        requests=len(arrivals),
        p50_microseconds=p50,
        p99_microseconds=p99,
        p99_to_p50=round(p99 / p50, 2),
        lateness_p99_microseconds=_quantile([each.lateness for each in arrivals], 0.99),
        processor_microseconds=taken.processor_microseconds(root, len(before) + len(arrivals)),
        others_cores=taken.others_cores,
    )


def _describe_overload(
    contender: Contender, capacity: float, taken: Taken[Phases]
) -> OverloadRound:
    before, during, after = taken.value
    usual = _quantile([each.took for each in before if each.outcome == SERVED] or [0], 0.99)
    served = [each.took for each in during if each.outcome == SERVED]
    refused = [each.took for each in during if each.outcome == REFUSED]
    seconds = max(each.scheduled + each.lateness for each in during) / _MICROSECONDS
    answers = sum(each.outcome in (SERVED, REFUSED) for one in taken.value for each in one)
    served_p99 = _quantile(served, 0.99) if served else None
    goodput = len(served) / seconds
    return OverloadRound(
        capacity=round(capacity, 1),
        offered=round(len(during) / seconds, 1),
        goodput=round(goodput, 1),
        share_of_capacity=round(goodput / capacity, 3),
        refused=round(len(refused) / seconds, 1),
        unanswered=round((len(during) - len(served) - len(refused)) / seconds, 1),
        given_up=round(_count(during, GIVEN_UP) / seconds, 1),
        broken=round(_count(during, BROKEN) / seconds, 1),
        without_connection=round(_count(during, NO_CONNECTION) / seconds, 1),
        refused_p50_microseconds=_quantile(refused, 0.5) if refused else None,
        refused_p99_microseconds=_quantile(refused, 0.99) if refused else None,
        usual_p99_microseconds=usual,
        served_p99_microseconds=served_p99,
        served_p99_to_usual=round(served_p99 / usual, 1) if served_p99 and usual else None,
        lateness_p99_microseconds=_quantile([each.lateness for each in during], 0.99),
        recovery_seconds=find_recovery_seconds(after, LATE * usual),
        processor_microseconds=taken.processor_microseconds(contender.server.process_id, answers),
        others_cores=taken.others_cores,
    )


def find_recovery_seconds(after: Sequence[Arrival], late: float) -> float:
    """Return the end of the last window in which requests were refused, late or not answered.

    A window counts if it holds more of them than the share that a p99 permits.
    """
    windows: dict[int, list[bool]] = {}
    for each in after:
        is_bad = each.outcome != SERVED or each.took > late
        windows.setdefault(each.scheduled // _WINDOW_MICROSECONDS, []).append(is_bad)
    bad = [number + 1 for number, window in windows.items() if sum(window) > 0.01 * len(window)]
    return max(bad, default=0) * _WINDOW_MICROSECONDS / _MICROSECONDS


def _quantile(values: Sequence[int], share: float) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _count(arrivals: Sequence[Arrival], outcome: int) -> int:
    return sum(each.outcome == outcome for each in arrivals)


def _outcomes(arrivals: Sequence[Arrival]) -> str:
    counts = {name: _count(arrivals, outcome) for outcome, name in _OUTCOMES.items()}
    found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"not every request was answered: {found}"
