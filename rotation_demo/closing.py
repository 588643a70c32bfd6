"""The end of the demonstration: the calendar, what is wrong, and the sum of it all."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from rotation_demo.fast_clock import FastClock
from rotation_demo.installation import Installation
from rotation_demo.run import Result
from rotation_demo.verifier import LIBRARIES

#: So much of what is planned is shown; the picture has all of it.
SHOWN_PLANS = 2


def show_examination(installation: Installation, say: Callable[[str], None]) -> None:
    """Have ``keys doctor`` show that no identity can do more than it has to."""
    told = installation.command("keys", "doctor", accepted=(0, 1)).splitlines()
    for line, detail in pairwise(told):
        if line.startswith(("WARNING", "FAILURE")):
            level, check, subject = line.split(maxsplit=2)
            say(f"keys doctor: {level} {check} {subject}: {detail.strip()}")
    say(f"keys doctor examined the installation and OpenBao: {told[-1]}.")


def show_calendar(installation: Installation, path: Path, say: Callable[[str], None]) -> None:
    """Draw the ring's calendar at the terminal and as a picture, by ``keys status``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    status = installation.command("keys", "status", "--svg", str(path.resolve()))
    # The facts, the calendar, every key: one paragraph each.
    calendar = status.split("\n\n")[1].splitlines()
    bars = 1 + max(number for number, line in enumerate(calendar) if "published  " in line)
    for line in ("", *calendar[: bars + SHOWN_PLANS]):
        say(line)
    if len(calendar) > bars + SHOWN_PLANS:
        say(f"... and {len(calendar) - bars - SHOWN_PLANS} more plans")
    say(f"The same as a picture: {path}")
    say("")


def check_result(kept: Result, bare: Result, clock: FastClock) -> list[str]:
    """Return what is not as it should be, a sentence each; nothing: all is well."""
    return [
        *_check_kept(kept),
        *_check_emergency(kept, clock),
        *_check_records(kept),
        *_check_bare(bare),
    ]


def _check_kept(kept: Result) -> Iterator[str]:
    if kept.refused:
        yield f"{kept.refused} good tokens were refused with pre-publication."
    for record in kept.rotations:
        silent = [*LIBRARIES, "introspection"] - record["verified"].keys()
        if silent or not record["tokens"]:
            yield f"Rotation {record['rotation']} shows nothing: its tokens were not verified."
    if kept.failed_requests:
        yield (
            f"{len(kept.failed_requests)} requests for a token failed, "
            f"the first: {kept.failed_requests[0]}"
        )


def _check_emergency(kept: Result, clock: FastClock) -> Iterator[str]:
    withdrawal = kept.withdrawal
    if withdrawal is None:
        yield "There was no emergency."
        return
    if not withdrawal.fenced:
        yield "OpenBao would still sign with the revoked key."
    for verifier, seconds in withdrawal.after(withdrawal.accepted_until).items():
        if seconds > clock.withdrawal_bound_seconds + 0.5:
            yield f"{verifier} accepted the revoked key for {seconds:.2f} s."


def _check_records(kept: Result) -> Iterator[str]:
    found = kept.reconciled
    if found is None or found.unaccounted or found.recorded < kept.tokens:
        yield "OpenBao's audit log and the nodes' records do not agree."
    elif found.unaccounted_after_forgery != 1:
        yield "A signature behind the server's back was not found."


def _check_bare(bare: Result) -> Iterator[str]:
    if not bare.refused:
        yield "Without pre-publication nothing was refused: the check does not bite."


def summarise(report: dict[str, Any]) -> Iterator[str]:
    """Yield the last lines."""
    kept, bare = report["with_prepublication"], report["without_prepublication"]
    yield (
        f"With pre-publication: {len(kept['rotations']) - 1} rotations, {kept['tokens']:,} tokens "
        f"issued, {kept['verified']:,} verifications, refused: {kept['refused']}."
    )
    yield (
        f"  Apart: {kept['refused_apart']} refusals of tokens by the revoked key; "
        f"{kept['issued_withdrawn']} tokens were issued by it after it was revoked."
    )
    yield (
        f"Without: {len(bare['rotations']) - 1} rotations, {bare['tokens']:,} tokens issued, "
        f"{bare['verified']:,} verifications, refused: {bare['refused']}. The check bites."
        if bare["refused"]
        else "Without: nothing was refused."
    )
    for when, run in (("with", kept), ("without", bare)):
        for complaint in run["complaints"]:
            yield f"In the logs, {when}: {complaint}"
    for failure in report["failures"]:
        yield f"FAILED: {failure}"
    yield f"{report['seconds']:.0f} s."
