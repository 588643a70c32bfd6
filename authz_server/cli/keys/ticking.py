"""``keys tick``: what time and the backends ask for, once or at intervals."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.errors import format_error
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.composition import KeyOperations, key_operations, require_ring
from authz_server.cli.keys.options import order_options
from authz_server.cli.keys.outcomes import describe_outcome, tell_outcome
from authz_server.cli.output import echo_status, print_json
from keys.errors import KeysError

FAILED = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command("tick", cls=Command)
@click.argument("ring", required=False)
@click.option(
    "--watch",
    "watch_seconds",
    type=click.FloatRange(min=0.1, max=86_400),
    metavar="SECONDS",
    help="Go on, with so long a pause, until SIGTERM or Ctrl-C.",
)
@click.option("--quiet", is_flag=True, help="Say nothing where there is nothing to do.")
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
    """Do what is due: follow the backend, change over, make a standby, fence, remove.

    For RING, else for every ring; made for cron. A ring with drive "follow" is followed: nothing is
    asked of its backend. With --json, a list with one outcome for each ring, at each round. The
    exit status is 0 when everything is done, 1 when a ring failed, 3 when something was left for
    the next tick.
    """
    with key_operations(invocation, "tick", looking=dry_run) as operations:
        one = _OneRound(operations, ring, quiet=quiet, dry_run=dry_run, as_json=as_json)
        if watch_seconds is None:
            status = one.run()
        else:
            with _ending() as ended:
                while not ended.is_set():
                    one.run()
                    ended.wait(watch_seconds)
            status = 0
    click.get_current_context().exit(status)


class _OneRound:
    """A tick of the rings; what fails for one of them leaves the others alone."""

    def __init__(
        self,
        operations: KeyOperations,
        ring: str | None,
        *,
        quiet: bool,
        dry_run: bool,
        as_json: bool,
    ) -> None:
        self._operations = operations
        self._ring = ring
        self._quiet = quiet
        self._dry_run = dry_run
        self._as_json = as_json

    def run(self) -> int:
        """Tick; return the worst exit status, a failure before anything else."""
        try:
            names = self._names()
        except KeysError as error:
            echo_status(f"NOT DONE: {format_error(error)}")
            return FAILED
        records = [self._tick(name) for name in names]
        told = [record for record in records if record and not self._is_silent(record)]
        if self._as_json and (told or not self._quiet):
            print_json(told)
        statuses = {tell_outcome(record, (), as_json=self._as_json) for record in told}
        return FAILED if None in records else max(statuses, default=0)

    def _names(self) -> list[str]:
        if self._ring is not None:
            return [require_ring(self._operations, self._ring).name]
        return [ring.name for ring in self._operations.rings()]

    def _tick(self, name: str) -> dict[str, Any] | None:
        """Return what was done, or None after saying why it failed."""
        operations, dry_run = self._operations, self._dry_run
        operations.observer.begin()
        try:
            outcome = operations.rotator.tick(name, actor=operations.actor, dry_run=dry_run)
        except KeysError as error:
            echo_status(f"NOT DONE {name}: {format_error(error)}")
            return None
        return describe_outcome("tick", outcome, operations, dry_run=dry_run)

    def _is_silent(self, record: dict[str, Any]) -> bool:
        nothing = not (record["written"] or record["failures"] or record["alarms"])
        return self._quiet and not self._dry_run and nothing


@contextmanager
def _ending() -> Iterator[threading.Event]:
    """Yield an event that is set once the process is told to end."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        ended.set()

    before = {each: signal.signal(each, end) for each in _SIGNALS}
    try:
        yield ended
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
