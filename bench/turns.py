"""Rounds of turns: what is compared is measured alternately, so that noise affects all alike."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.cpu_time import cores_of_others, take_snapshot
from bench.free_cores import FreeCores
from bench.load import UnexpectedAnswerError

_MICROSECONDS = 1_000_000
Value = TypeVar("Value")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: how often each contender is measured.
        seconds: how long each time.
        warm_up_seconds: how long each is busy before the first round.
        jit_warm_up_seconds: the same once for a contender with a just-in-time compiler like Java's.
    """

    rounds: int
    seconds: int
    warm_up_seconds: int
    jit_warm_up_seconds: int


@dataclass(frozen=True)
class Turn(Generic[Value]):
    """What is measured in each round.

    Attributes:
        name: unique among the turns of a round.
        process_ids: the roots of the process trees that take part.
        warm_up: called once before the first round.
        run: the measurement.
        prepare: called before each measurement; its time is not measured.
    """

    name: str
    process_ids: Sequence[int]
    warm_up: Callable[[], object]
    run: Callable[[], Value]
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Taken(Generic[Value]):
    """One turn that was measured.

    Attributes:
        value: the result of its ``run``.
        processor_seconds: user and system time of each process tree.
        others_cores: how many cores were used by what is not measured.
    """

    value: Value
    processor_seconds: Mapping[int, float]
    others_cores: float

    def processor_microseconds(self, root: int, count: int) -> float:
        """Return the time of one process tree divided by a number of requests."""
        return round(self.processor_seconds[root] * _MICROSECONDS / max(1, count), 1)

    def describe(self) -> str:
        """Return the processor time of what was measured and of others, for the terminal."""
        used = sum(self.processor_seconds.values())
        return f"{used:.2f} s of processor time, others {self.others_cores:.0%} of a core"


@dataclass(frozen=True)
class Rounds(Generic[Value]):
    """The turns of each name that gave only expected answers, and why others were stopped."""

    taken: Mapping[str, Sequence[Taken[Value]]]
    stopped: Mapping[str, str]


def take_rounds(turns: Sequence[Turn[Value]], rounds: int, cores: FreeCores) -> Rounds[Value]:
    """Measure every turn in every round; the order rotates by one place from round to round.

    The processes that do not take part in a turn are suspended.

    A turn that meets an unexpected answer is left out of the result and of further rounds.
    """
    taken: dict[str, list[Taken[Value]]] = {turn.name: [] for turn in turns}
    stopped: dict[str, str] = {}
    roots = {each for turn in turns for each in turn.process_ids}
    for turn in turns:
        # The rounds meet what is wrong again; a slow start is not wrong.
        with suppress(UnexpectedAnswerError):
            turn.warm_up()
    for number in range(rounds):
        for place in range(len(turns)):
            turn = turns[(place + number) % len(turns)]
            if turn.name in stopped:
                continue
            idle = roots.difference(turn.process_ids)
            try:
                with cores.suspended(idle):
                    one = _take(turn, cores)
            except UnexpectedAnswerError as error:
                stopped[turn.name] = str(error)
                del taken[turn.name]
                print(f"  {turn.name} was stopped: {error}", flush=True)
            else:
                taken[turn.name].append(one)
                print(f"  round {number + 1}, {turn.name}: {one.describe()}", flush=True)
    return Rounds(taken, stopped)


def _take(turn: Turn[Value], cores: FreeCores) -> Taken[Value]:
    repeats = 0
    while True:
        cores.await_free()
        turn.prepare()
        taken = _take_once(turn)
        if not cores.may_repeat(taken.others_cores, repeats=repeats):
            cores.record(taken.others_cores)
            return taken
        repeats += 1


def _take_once(turn: Turn[Value]) -> Taken[Value]:
    before = take_snapshot()
    value = turn.run()
    after = take_snapshot()
    spent = {
        root: after.tree_seconds(root) - before.tree_seconds(root) for root in turn.process_ids
    }
    others = cores_of_others(before, after, turn.process_ids)
    return Taken(value, spent, round(others, 3))
