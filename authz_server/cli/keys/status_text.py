"""``keys status`` for a terminal, 80 columns wide."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from textwrap import wrap

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from authz_server.cli.keys.calendar_text import WIDTH, calendar_lines
from authz_server.cli.keys.consumers_text import consumer_lines
from authz_server.cli.keys.event_names import event_in_words
from authz_server.cli.plain_text import timestamp
from authz_server.operations.keys.list import KeyView
from authz_server.operations.keys.status import BackendStatus, NodeStatus, RingReport, RingStatus
from keys.lifecycle.plan import Wait

_LABEL = 9
_NAMED_NODES = 8
_SHOWN_CHANGES = 5
_KEY_TIMES = (
    ("published_at", "published"),
    ("activate_at", "signs from"),
    ("stopped_at", "stopped"),
    ("fenced_at", "fenced"),
    ("remove_after", "leaves the JWKS"),
    ("revoked_at", "revoked"),
)


def print_status(report: RingReport) -> None:
    """Print one ring: facts, calendar, keys and warnings."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    status = report.status
    plain = not _has_unicode(console)

    def show(*lines: str, style: str = "") -> None:
        for line in lines:
            console.print(Text(_printable(line, console), style=style))

    show(*_headline(status), style="bold")
    for label, lines in facts_of(status):
        folded = [part for line in lines for part in _folded(line)]
        for number, line in enumerate(folded):
            show(f"  {'' if number else label:<{_LABEL}}{line}")
    console.print()
    for drawn in calendar_lines(report.calendar, plain=plain):
        console.print(drawn)
    console.print()
    for key in status.keys:
        show(f"v{key.version:<3} {key.kid}  {key.state}")
        for line in _times(key):
            show(f"     {line}")
    console.print()
    for line in _history(status):
        show(_cut(_printable(line, console), plain=plain))
    show(*warnings(status), style="bold red")
    console.print()


def _printable(line: str, console: Console) -> str:
    """Return ``line`` with the characters that the terminal cannot show replaced."""
    shown = "".join(each if each.isprintable() else " " for each in line)
    return shown.encode(console.encoding, "backslashreplace").decode(console.encoding)


def _folded(line: str) -> list[str]:
    """Return a line folded to the width next to a label, without splitting ids."""
    width = WIDTH - 2 - _LABEL
    return wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]


def _has_unicode(console: Console) -> bool:
    return console.encoding.lower().replace("-", "").startswith("utf")


def _headline(status: RingStatus) -> list[str]:
    drive = status.drive or "none: the ring is not in the settings"
    frozen = ", FROZEN" if status.frozen else ""
    line = (
        f"{status.ring}  {status.algorithm}  {status.backend}  "
        f"driven by {drive}, epoch {status.epoch}{frozen}"
    )
    return wrap(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def facts_of(status: RingStatus) -> Iterator[tuple[str, list[str]]]:
    """Yield each fact of a ring: its label and its lines."""
    yield "signs", [_signs(status)]
    yield "next", [_next(status)]
    if status.successor:
        from_ = timestamp(status.succeeded_at)
        yield "moves", [f"{status.successor} signs in its place from {from_}"]
    if status.cautious_until:
        yield "caution", [f"the JWKS is kept shorter until {timestamp(status.cautious_until)}"]
    yield "backend", [*_backend(status.at_backend)]
    yield "nodes", [*_nodes(status.nodes)]
    yield "readers", consumer_lines(status.readers)
    chain = "the chain is whole" if status.events.verified else "THE CHAIN IS BROKEN"
    yield "events", [f"{status.events.count}, {chain}"]
    if status.due:
        yield "due", [*status.due]
    if status.waits:
        yield "waits", [_wait(each) for each in status.waits]


def _wait(wait: Wait) -> str:
    return f"{wait.what}: {timestamp(wait.until) or 'later'} ({wait.why})"


def _signs(status: RingStatus) -> str:
    active = status.active
    if active is None:
        return "nothing"
    age = _duration(timedelta(seconds=active.age_seconds))
    return f"version {active.version} since {timestamp(active.signs_since)}, {age}"


def _duration(age: timedelta) -> str:
    hours, rest = divmod(age.seconds, 3_600)
    if age.days:
        return f"{age.days} d {hours} h"
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min"


def _next(status: RingStatus) -> str:
    key = status.next
    if key is None:
        return "none of this ring" if status.successor else "there is no standby"
    when = f"from {timestamp(key.activate_at)}" if key.activate_at else "at the next rotation"
    return f"version {key.version} {when}"


def _backend(backend: BackendStatus) -> Iterator[str]:
    yield f"{'usable' if backend.usable else 'NOT USABLE'}: {backend.detail}"
    if backend.latest_version is not None:
        floors = (
            f", signs from {backend.sign_floor}, verifies from {backend.verify_floor}"
            if backend.sign_floor is not None
            else ""
        )
        recorded = f"(recorded {backend.recorded_version})"
        yield f"latest version {backend.latest_version} {recorded}{floors}"


def _nodes(nodes: Sequence[NodeStatus]) -> Iterator[str]:
    if not nodes:
        yield "none has reported"
    for node in nodes[:_NAMED_NODES]:
        remarks = [f"epoch {node.epoch_seen}", f"clock {node.clock_offset_seconds:+.3f} s"]
        if node.silent:
            remarks.append(f"silent since {timestamp(node.seen_at)}")
        elif node.behind:
            remarks.append("BEHIND")
        if node.clock_off:
            remarks.append("CLOCK OFF: it does not sign")
        yield f"{node.node}: {', '.join(remarks)}"
    if len(nodes) > _NAMED_NODES:
        yield f"and {len(nodes) - _NAMED_NODES} more"


def _times(key: KeyView) -> Iterator[str]:
    times = [
        f"{word} {timestamp(getattr(key, field))}"
        for field, word in _KEY_TIMES
        if getattr(key, field)
    ]
    for start in range(0, len(times), 2):
        yield ", ".join(times[start : start + 2])
    if key.reason:
        yield f"reason: {key.reason}"


def _history(status: RingStatus) -> Iterator[str]:
    """Yield the latest changes, newest first, a line each."""
    changes = status.history
    if not changes:
        return
    shown = changes[:_SHOWN_CHANGES]
    total = len(changes) + status.history_older
    yield f"History, newest first, {len(shown)} of {total} (more with --json or --html):"
    for change in shown:
        key = "ring" if change.version is None else f"v{change.version}"
        why = f": {change.reason}" if change.reason else ""
        event = event_in_words(change.event)
        yield f"{timestamp(change.at)} {key:<5}{event}, {change.actor}{why}"


def _cut(line: str, *, plain: bool) -> str:
    """Return ``line`` in 80 columns."""
    if cell_len(line) <= WIDTH:
        return line
    end = "..." if plain else "…"
    return set_cell_size(line, WIDTH - cell_len(end)).rstrip() + end


def warnings(status: RingStatus) -> Iterator[str]:
    """Yield the warnings for an operator."""
    for each in status.overdue:
        yield f"OVERDUE {status.ring}: {each}"
    for alarm in status.alarms:
        yield f"ALARM {alarm.event} {alarm.subject}: {alarm.detail}"
    if not status.events.verified:
        broken = status.events.first_broken
        yield f"ALARM events of {status.ring}: event {broken} was changed, or what was before it"
