"""``keys status`` at a terminal, 80 columns wide."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from textwrap import wrap
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from authz_server.cli.keys.calendar_text import WIDTH, calendar_lines
from authz_server.cli.keys.history import event_in_words
from authz_server.cli.keys.readers import readers_in_words
from authz_server.cli.keys.ring_report import RingReport

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
    """Print one ring: facts, calendar, keys, and what somebody has to look at."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    fields = report.fields
    plain = not _speaks_unicode(console)

    def show(line: str, style: str = "") -> None:
        console.print(Text(_printable(line, console), style=style))

    show(_headline(fields), "bold")
    for label, lines in facts_of(fields):
        folded = [part for line in lines for part in _folded(line)]
        for number, line in enumerate(folded):
            show(f"  {'' if number else label:<{_LABEL}}{line}")
    console.print()
    for drawn in calendar_lines(report.calendar, plain=plain):
        console.print(drawn)
    console.print()
    for key in fields["keys"]:
        show(f"v{key['version']:<3} {key['kid']}  {key['state']}")
        for line in _times(key):
            show(f"     {line}")
    console.print()
    for line in _history(fields):
        show(_cut(_printable(line, console), plain=plain))
    for line in warnings(fields):
        show(line, "bold red")
    console.print()


def _printable(line: str, console: Console) -> str:
    """Return ``line`` as the terminal can show it: others write reasons and names of nodes."""
    shown = "".join(each if each.isprintable() else " " for each in line)
    return shown.encode(console.encoding, "backslashreplace").decode(console.encoding)


def _folded(line: str) -> list[str]:
    """Return a line as several that fit beside a label; ids stay whole."""
    width = WIDTH - 2 - _LABEL
    return wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]


def _speaks_unicode(console: Console) -> bool:
    return console.encoding.lower().replace("-", "").startswith("utf")


def _headline(fields: Mapping[str, Any]) -> str:
    drive = fields["drive"] or "nobody: it is not in the settings"
    frozen = ", FROZEN" if fields["frozen"] else ""
    return (
        f"{fields['ring']}  {fields['algorithm']}  {fields['backend']}  "
        f"driven by {drive}, epoch {fields['epoch']}{frozen}"
    )


def facts_of(fields: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield each fact of a ring: its label, and the lines that say it."""
    yield "signs", [_signs(fields)]
    yield "next", [_next(fields)]
    if fields["successor"]:
        yield "moves", [f"{fields['successor']} signs in its place from {fields['succeeded_at']}"]
    if fields["cautious_until"]:
        yield "caution", [f"the JWKS is kept shorter until {fields['cautious_until']}"]
    yield "backend", [*_backend(fields["at_backend"])]
    yield "nodes", [*_nodes(fields["nodes"])]
    yield "readers", readers_in_words(fields["readers"])
    events = fields["events"]
    chain = "their chain is whole" if events["verified"] else "THEIR CHAIN IS BROKEN"
    yield "events", [f"{events['count']}, {chain}"]
    for label in ("due", "waits"):
        if fields[label]:
            yield label, [_wait(each) if label == "waits" else each for each in fields[label]]


def _wait(wait: Mapping[str, Any]) -> str:
    return f"{wait['what']}: {wait['until'] or 'later'} ({wait['why']})"


def _signs(fields: Mapping[str, Any]) -> str:
    active = fields["active"]
    if active is None:
        return "nothing"
    age = timedelta(seconds=active["age_seconds"])
    return f"version {active['version']} since {active['signs_since']}, {_duration(age)}"


def _duration(age: timedelta) -> str:
    hours, rest = divmod(age.seconds, 3_600)
    if age.days:
        return f"{age.days} d {hours} h"
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min"


def _next(fields: Mapping[str, Any]) -> str:
    key = fields["next"]
    if key is None:
        return "there is no standby"
    when = f"from {key['activate_at']}" if key["activate_at"] else "at the next rotation"
    return f"version {key['version']} {when}"


def _backend(backend: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'usable' if backend['usable'] else 'NOT USABLE'}: {backend['detail']}"
    if backend["latest_version"] is not None:
        floors = (
            f", signs from {backend['sign_floor']}, verifies from {backend['verify_floor']}"
            if backend["sign_floor"] is not None
            else ""
        )
        yield (
            f"latest version {backend['latest_version']} (recorded "
            f"{backend['recorded_version']}){floors}"
        )


def _nodes(nodes: list[dict[str, Any]]) -> Iterator[str]:
    if not nodes:
        yield "none has reported"
    for node in nodes[:_NAMED_NODES]:
        remarks = [f"epoch {node['epoch_seen']}", f"clock {node['clock_offset_seconds']:+.3f} s"]
        if node["silent"]:
            remarks.append(f"silent since {node['seen_at']}")
        elif node["behind"]:
            remarks.append("BEHIND")
        if node["clock_off"]:
            remarks.append("CLOCK OFF: it does not sign")
        yield f"{node['node']}: {', '.join(remarks)}"
    if len(nodes) > _NAMED_NODES:
        yield f"and {len(nodes) - _NAMED_NODES} more"


def _times(key: Mapping[str, Any]) -> Iterator[str]:
    told = [f"{word} {key[field]}" for field, word in _KEY_TIMES if key[field]]
    for start in range(0, len(told), 2):
        yield ", ".join(told[start : start + 2])
    if key["reason"]:
        yield f"reason: {key['reason']}"


def _history(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the latest changes, newest first, a line each."""
    changes = fields["history"]
    if not changes:
        return
    shown = changes[:_SHOWN_CHANGES]
    total = len(changes) + fields["history_older"]
    yield f"History, newest first, {len(shown)} of {total} (more with --json or --html):"
    for change in shown:
        key = "ring" if change["version"] is None else f"v{change['version']}"
        why = f": {change['reason']}" if change["reason"] else ""
        event = event_in_words(change["event"])
        yield f"{change['at']} {key:<5}{event}, {change['actor']}{why}"


def _cut(line: str, *, plain: bool) -> str:
    """Return ``line`` in 80 columns."""
    if cell_len(line) <= WIDTH:
        return line
    end = "..." if plain else "…"
    return set_cell_size(line, WIDTH - cell_len(end)).rstrip() + end


def warnings(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield what somebody has to look at."""
    for each in fields["overdue"]:
        yield f"OVERDUE {fields['ring']}: {each}"
    for alarm in fields["alarms"]:
        yield f"ALARM {alarm['event']} {alarm['subject']}: {alarm['detail']}"
    if not fields["events"]["verified"]:
        broken = fields["events"]["first_broken"]
        yield f"ALARM events of {fields['ring']}: event {broken} was changed, or what was before it"
