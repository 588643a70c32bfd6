"""The demonstration of key rotation: ``make demo-rotation``, ``make demo-rotation QUICK=1``.

It needs the tests' starters on the import path. The exit status is 0 only when no good token was
refused, and when the same traffic without pre-publication shows refusals: so the check bites.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rotation_demo.closing import check_result, show_calendar, show_examination, summarise
from rotation_demo.fast_clock import FastClock
from rotation_demo.installation import WITHOUT_PREPUBLICATION, Plan, complaints, log_tails
from rotation_demo.reconciling import reconcile
from rotation_demo.run import Result, Say, running
from rotation_demo.vault import prepare_key
from support.openbao import RaftServer
from support.postgresql import PostgresServer

CALENDAR = Path("build/rotation-calendar.svg")


class Length(NamedTuple):
    """How many change-overs there are before and after the emergency, and without waiting."""

    before: int
    after: int
    without: int


FULL = Length(before=10, after=10, without=3)
QUICK = Length(before=2, after=1, without=2)


def main() -> int:
    """Run the demonstration; return its exit status."""
    arguments = _parser().parse_args()
    length = QUICK if arguments.quick else FULL
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.1f}  {line}", flush=True)

    with tempfile.TemporaryDirectory(prefix="authz-server-rotation-") as folder:
        directory = Path(folder)
        try:
            report = _demonstrate(length, say, directory, arguments.calendar)
        except Exception:
            print("\n".join(log_tails(directory)), file=sys.stderr)
            raise
    report["seconds"] = round(time.monotonic() - started, 1)
    if arguments.report:
        arguments.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for line in summarise(report):
        print(line)
    return 1 if report["failures"] else 0


def _demonstrate(length: Length, say: Say, directory: Path, calendar: Path) -> dict[str, Any]:
    with RaftServer(audit=True) as vault, PostgresServer() as database:
        say(f"OpenBao on raft storage, unsealed, audited: {vault.address}")
        say(f"PostgreSQL: 127.0.0.1:{database.port}")
        directories = [directory, vault.directory, database.directory]
        processes = [vault.process_id, database.process_id]
        clock = FastClock()
        say(f"A fast clock: {clock.in_words()}.")
        plan = _plan("tokens", vault, database, directory, clock)
        kept = _with_prepublication(plan, length, say, calendar)
        bare = _without_prepublication(
            _plan(
                "tokens-at-once",
                vault,
                database,
                directory,
                clock,
                program=WITHOUT_PREPUBLICATION,
                # A tick makes a version whenever none waits, which here is always.
                tick_seconds=3,
            ),
            length,
            say,
        )
    return {
        "with_prepublication": _as_record(kept),
        "without_prepublication": _as_record(bare),
        "clock": asdict(clock),
        "failures": check_result(kept, bare, clock),
        # What has to be gone by now.
        "directories": [str(each) for each in directories],
        "processes": [*processes, *kept.processes, *bare.processes],
    }


def _plan(
    name: str,
    vault: RaftServer,
    database: PostgresServer,
    directory: Path,
    clock: FastClock,
    **more: Any,  # noqa: ANN401 - the rest of a plan
) -> Plan:
    own = directory / name
    own.mkdir()
    key = prepare_key(vault, name, own)
    return Plan(own, database.create_database(), key, clock, **more)


def _with_prepublication(plan: Plan, length: Length, say: Say, calendar: Path) -> Result:
    with running(plan, say, plan.directory) as run:
        say("Three servers, a rotator and three verifiers run, each in a process of its own.")
        show_examination(run.installation, say)
        run.start()
        run.rotate(length.before)
        run.emergency()
        run.rotate(length.after)
        result = run.finish()
        result.reconciled = reconcile(run.installation, say)
        show_calendar(run.installation, calendar, print)
    result.complaints = complaints(plan.directory)
    return result


def _without_prepublication(plan: Plan, length: Length, say: Say) -> Result:
    say("The same once more, with pre-publication switched off: a new key signs at once.")
    with running(plan, say, plan.directory) as run:
        run.start()
        run.rotate(length.without)
        result = run.finish()
    result.complaints = complaints(plan.directory)
    return result


def _as_record(result: Result) -> dict[str, Any]:
    record = asdict(result)
    withdrawal = result.withdrawal
    record["withdrawal"] = withdrawal and {
        "kid": withdrawal.kid,
        "successor": withdrawal.successor.kid,
        "seconds_to_write": round(withdrawal.written_at - withdrawal.ordered_at, 3),
        "standby_signs": withdrawal.after(withdrawal.signing_at),
        "introspection_refuses": withdrawal.after(withdrawal.refused_at),
        "jwks_without_key": withdrawal.after(withdrawal.unpublished_at),
        "accepted_until": withdrawal.after(withdrawal.accepted_until),
        "fenced": withdrawal.fenced,
    }
    return record


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rotation_demo", description="Rotates keys under load.")
    parser.add_argument("--quick", action="store_true", help="fewer rotations")
    parser.add_argument("--calendar", type=Path, default=CALENDAR, help="where to draw it")
    parser.add_argument("--report", type=Path, help="write the numbers there, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
