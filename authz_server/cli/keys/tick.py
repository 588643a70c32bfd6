"""``keys tick``: apply the changes that are due, once or at intervals."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType

import click

from authz_server.cli.commands import Command
from authz_server.cli.errors import format_error
from authz_server.cli.invocation import Invocation, Operations, pass_invocation
from authz_server.cli.keys.context import key_operations
from authz_server.cli.keys.options import order_options
from authz_server.cli.keys.orders import print_result
from authz_server.cli.output import as_record, echo_status, print_json
from authz_server.errors import OperatorError
from authz_server.operations.keys.orders import name_rings, tick_ring
from authz_server.operations.keys.results import OrderResult
from keys.errors import KeysError

FAILED = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Of the server's machine, and of the admin API.
_FAILURES = (KeysError, OperatorError)


def _require_number(
    _context: click.Context, _parameter: click.Parameter, value: float | None
) -> float | None:
    # Comparisons with NaN are all false, so that it is within any range.
    if value is not None and math.isnan(value):
        raise click.BadParameter("it is not a number.")
    return value


@click.command("tick", cls=Command, remote=True, example="authz-server keys tick --quiet")
@click.argument("ring", required=False)
@click.option(
    "--watch",
    "watch_seconds",
    type=click.FloatRange(min=0.1, max=86_400),
    metavar="SECONDS",
    callback=_require_number,
    help="Repeat after this pause, until SIGTERM or Ctrl-C.",
)
@click.option("--quiet", is_flag=True, help="Print nothing when nothing is due.")
@order_options
@pass_invocation
def tick(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    ring: str | None,
    watch_seconds: float | None,
    quiet: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Apply the changes that are due, once or at intervals.

    For RING, or for every ring, it adopts versions of the backend, changes the key that signs,
    makes a standby, fences and removes old keys. It is made for cron. In a ring with drive "follow"
    it adopts versions and orders nothing at the backend. With --json, it prints a list with one
    result for each ring, at each round. The exit status is 0 when everything is done, 1 when a ring
    failed, 3 when something was left for the next tick.
    """
    with key_operations(invocation, "tick", looking=dry_run) as carry_out:
        tick_round = _Round(
            carry_out=carry_out, ring=ring, quiet=quiet, dry_run=dry_run, as_json=as_json
        )
        if watch_seconds is None:
            status = tick_round.run()
        else:
            with ending_signals() as signals:
                tick_round.run()
                while not signals.wait(watch_seconds):
                    tick_round.run()
            status = 0
    click.get_current_context().exit(status)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """A tick of the rings; a failure of one of them does not affect the others."""

    carry_out: Operations
    ring: str | None
    quiet: bool
    dry_run: bool
    as_json: bool

    def run(self) -> int:
        """Tick; return the worst exit status."""
        try:
            names = self.carry_out(name_rings, self.ring)
        except _FAILURES as error:
            echo_status(f"NOT DONE: {format_error(error)}")
            return FAILED
        results = [self._tick(name) for name in names]
        shown = [result for result in results if result and not self._is_silent(result)]
        if self.as_json and (shown or not self.quiet):
            print_json([as_record(result) for result in shown])
        statuses = {print_result(result, as_json=self.as_json) for result in shown}
        return FAILED if None in results else max(statuses, default=0)

    def _tick(self, name: str) -> OrderResult | None:
        """Return the result; print the error and return None if it failed."""
        try:
            return self.carry_out(tick_ring, name, dry_run=self.dry_run)
        except _FAILURES as error:
            echo_status(f"NOT DONE {name}: {format_error(error)}")
            return None

    def _is_silent(self, result: OrderResult) -> bool:
        nothing = not (result.written or result.failures or result.alarms)
        return self.quiet and not self.dry_run and nothing


class EndingSignals:
    """The signals that ask the process to end.

    In a queue: a handler that sets an event waits for ever where it interrupts one that takes the
    lock of the event.
    """

    def __init__(self) -> None:
        self._numbers: SimpleQueue[int] = SimpleQueue()

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Keep a signal; the handler."""
        self._numbers.put(number)

    def wait(self, seconds: float) -> bool:
        """Wait for a signal, for ``seconds`` at most; return whether one has come."""
        try:
            self._numbers.get(timeout=seconds)
        except Empty:
            return False
        return True


@contextmanager
def ending_signals() -> Iterator[EndingSignals]:
    """Yield what keeps SIGTERM and SIGINT, which end nothing meanwhile."""
    signals = EndingSignals()
    before = {each: signal.signal(each, signals.handle) for each in _SIGNALS}
    try:
        yield signals
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
