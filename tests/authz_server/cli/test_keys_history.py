import re
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from sqlalchemy import create_engine, text

from authz_server.cli.keys.event_names import event_in_words
from authz_server.cli.root import main
from authz_server.metrics.definitions import ALARMS
from support.source_tree import ROOT


@pytest.fixture
def after_the_night(keyed):
    """The same after an emergency: version 1 was tainted by alice, version 2 revoked by bob."""
    first, second = (key["kid"] for key in keyed.json("keys", "list"))
    keyed.must("--actor", "alice", "keys", "taint", first, "--reason", "INC-17: <odd> use")
    keyed.must("--actor", "bob", "keys", "revoke", second, "--reason", "INC-17: seen outside")
    keyed.must(
        *("--actor", "carol", "revoke", "--yes"),
        *("--key", first, "--reason", "INC-17: to be sure"),
    )
    return keyed


def ring_of(cli):
    (ring,) = cli.json("keys", "status")["rings"]
    return ring


def connect(cli):
    return create_engine(cli.database_url)


def test_the_history_has_every_event_of_the_chain_newest_first(after_the_night):
    ring = ring_of(after_the_night)
    engine = connect(after_the_night)
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT event, kid, actor, reason FROM key_event ORDER BY id DESC")
        ).all()
    engine.dispose()
    chain = [
        tuple(change[name] for name in ("event", "kid", "actor", "reason"))
        for change in ring["history"]
        if change["event"] not in {"key.revocation_timed", "cut_off.recorded"}
    ]
    assert chain == [tuple(row) for row in rows]
    assert [each["at"] for each in ring["history"]] == sorted(
        (each["at"] for each in ring["history"]), reverse=True
    )
    versions = {key["kid"]: key["version"] for key in ring["keys"]} | {None: None}
    assert all(each["version"] == versions[each["kid"]] for each in ring["history"])
    assert ring["history_older"] == 0


def test_the_history_names_who_did_what_and_why(after_the_night):
    ring = ring_of(after_the_night)
    told = {
        (each["event"], each["version"], each["actor"], each["reason"]) for each in ring["history"]
    }
    assert ("key.tainted", 1, "operator:alice via cli", "INC-17: <odd> use") in told
    assert ("key.revoked", 2, "operator:bob via cli", "INC-17: seen outside") in told
    # These two are audit records without an event of the chain.
    assert ("cut_off.recorded", 1, "operator:carol via cli", "INC-17: to be sure") in told
    timed = next(each for each in ring["history"] if each["event"] == "key.revocation_timed")
    assert (timed["version"], timed["actor"]) == (2, "operator:bob via cli")
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", each["at"]) for each in ring["history"]
    )


def test_the_history_of_a_ring_is_its_own(after_the_night):
    before = len(ring_of(after_the_night)["history"])
    engine = connect(after_the_night)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_record (at, actor, action, subject, detail) VALUES "
                "('2030-01-01 00:00:00+00:00', 'x', 'cut_off.recorded', 'key:another', '{}'), "
                "('2030-01-01 00:00:00+00:00', 'x', 'key.revocation_timed', 'another', '{}'), "
                "('2030-01-01 00:00:00+00:00', 'x', 'client.created', 'another', '{}')"
            )
        )
    engine.dispose()
    assert len(ring_of(after_the_night)["history"]) == before


class Tables(HTMLParser):
    """The tables of a page: caption, headings and rows, each cell as text."""

    def __init__(self):
        super().__init__()
        self.tables, self.scopes, self._cell = {}, [], None
        self._rows = []

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"th", "td", "caption"}:
            self._cell = []
            if tag == "th":
                self.scopes.append(dict(attrs).get("scope"))

    def handle_endtag(self, tag):
        if tag in {"th", "td"}:
            self._rows[-1].append("".join(self._cell))
        elif tag == "caption":
            self.tables.setdefault("".join(self._cell), self._rows)

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)


def read_page(cli, tmp_path):
    cli.must("keys", "status", "--html", tmp_path / "keys.html")
    page = (tmp_path / "keys.html").read_text()
    tables = Tables()
    tables.feed(page)
    return page, tables


def test_the_page_shows_the_history_of_each_ring(after_the_night, tmp_path):
    page, tables = read_page(after_the_night, tmp_path)
    heads, *rows = tables.tables["History, newest first"]
    assert heads == ["Time (UTC)", "Event", "Key", "Actor", "Reason"]
    history = ring_of(after_the_night)["history"]
    assert rows == [
        [
            each["at"].replace("T", " ").removesuffix("Z"),
            event_in_words(each["event"]),
            f"v{each['version']} {each['kid']}" if each["kid"] else "the ring",
            each["actor"],
            each["reason"],
        ]
        for each in history
    ]
    assert "<odd>" not in page
    assert "Older changes" not in page
    assert page.index("<svg") < page.index("History, newest first")


def test_the_page_is_laid_out_for_readers_of_all_kinds(after_the_night, tmp_path):
    page, tables = read_page(after_the_night, tmp_path)
    assert set(tables.scopes) == {"col", "row"}
    assert '<html lang="en">' in page
    assert "<title>Signing keys of https://authz.example</title>" in page
    assert '<meta name="viewport" content="width=device-width' in page
    assert re.search(r'class="picture" role="region" tabindex="0" aria-label="[^"]+"', page)
    for style in ("@media print", "prefers-color-scheme: dark", "max-width: 56rem"):
        assert style in page
    for key in ring_of(after_the_night)["keys"]:
        assert f"<code>{key['kid']}</code>" in page


def test_only_the_latest_changes_are_shown_and_the_others_counted(keyed, tmp_path):
    present = len(ring_of(keyed)["history"])
    engine = connect(keyed)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO key_event "
                "(ring, epoch, kid, event, actor, reason, at, previous_hash, hash) VALUES "
                "('es256', 1, NULL, 'ring.frozen', 'operator:x', :reason, :at, '', '')"
            ),
            [
                {"reason": f"change {number}", "at": f"2999-01-01 00:{number:02}:00+00:00"}
                for number in range(60)
            ],
        )
    engine.dispose()
    ring = ring_of(keyed)
    assert [each["reason"] for each in ring["history"]] == [
        f"change {number}" for number in range(59, 9, -1)
    ]
    assert ring["history_older"] == 10 + present
    page, tables = read_page(keyed, tmp_path)
    assert len(tables.tables["History, newest first"]) == 1 + 50
    assert f"Older changes, in the audit records: {10 + present}." in page
    assert f"History, newest first, 5 of {60 + present} (" in keyed.must("keys", "status")


def test_the_latest_five_changes_fit_a_terminal(keyed):
    first = keyed.json("keys", "list")[0]["kid"]
    keyed.must("--actor", "a" * 60, "keys", "taint", first, "--reason", "x漢" * 200)
    shown = keyed.must("keys", "status").splitlines()
    begins = next(number for number, line in enumerate(shown) if line.startswith("History"))
    lines = shown[begins + 1 : begins + 6]
    history = ring_of(keyed)["history"][:5]
    assert [line[:20] for line in lines] == [each["at"] for each in history]
    assert max(map(cell_len, lines)) <= 80
    cut = next(line for line in lines if "tainted" in line)
    assert cut.endswith("…")
    assert re.match(r"\S+Z v1   tainted, operator:a", cut)
    whole = [line for line in shown if line.startswith(f"v1   {first}  tainted")]
    assert whole, "the whole id stands in the list"


def test_a_reason_is_shown_at_a_terminal_without_its_characters(keyed):
    first = keyed.json("keys", "list")[0]["kid"]
    keyed.must("keys", "taint", first, "--reason", "perdu à l'aéroport " * 5)
    arguments = ["--config", str(keyed.config), "keys", "status"]
    result = CliRunner(charset="ascii").invoke(main, arguments)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if "tainted, " in line)
    assert r"perdu \xe0" in line
    assert (len(line) <= 80, line[-3:]) == (True, "...")


def test_control_characters_of_a_reason_do_not_reach_the_terminal(keyed):
    engine = connect(keyed)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE key_event SET reason = :reason"), {"reason": "a\x1b[2Jb\nc"}
        )
    engine.dispose()
    shown = keyed.must("keys", "status")
    assert "\x1b" not in shown
    assert "a [2Jb c" in shown


def test_every_event_of_a_ring_has_words():
    names = {
        name
        for module in ("adoption", "first_key", "orders", "rotator", "tick")
        for name in re.findall(
            r'"((?:key|ring|emergency)\.[a-z_]+)"',
            (ROOT / f"keys/lifecycle/{module}.py").read_text(),
        )
    }
    events = names - set(ALARMS)
    assert {"key.retired", "ring.cautious", "emergency.exception"} <= events
    section = (ROOT / "docs/events.md").read_text().partition("## `key.changed`")[2]
    documented = set(
        re.findall(r"`((?:key|ring|emergency)\.[a-z_]+)`", section.partition("\n## ")[0])
    )
    for event in events | documented:
        assert "." not in event_in_words(event)
        assert event_in_words(event) != event.replace(".", " ").replace("_", " "), event


def test_an_event_of_another_version_is_shown_by_its_name():
    assert event_in_words("key.moved_away") == "key moved away"
