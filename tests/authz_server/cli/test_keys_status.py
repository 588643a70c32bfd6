import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html.parser import HTMLParser

from sqlalchemy import create_engine, text

from authz_server.operations.keys.calendar.legend import MARKS
from support.settings_file import write_settings

KINDS = {mark.name for mark in MARKS}


def change(cli, statement, **values):
    engine = create_engine(cli.database_url)
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


def test_the_state_of_a_ring_is_shown(keyed):
    shown = keyed.json("keys", "status")
    assert (shown["asked_as"], shown["issuer"]) == ("rotator", "https://authz.example")
    (ring,) = shown["rings"]
    assert (ring["ring"], ring["drive"], ring["epoch"]) == ("es256", "self", 1)
    assert ring["active"]["version"] == 1
    (since,) = (key["activate_at"] for key in ring["keys"] if key["state"] == "active")
    age = datetime.now(UTC) - datetime.fromisoformat(since)
    assert abs(ring["active"]["age_seconds"] - age.total_seconds()) < 60
    assert ring["next"]["version"] == 2
    assert ring["at_backend"]["usable"] is True
    assert (ring["at_backend"]["latest_version"], ring["at_backend"]["recorded_version"]) == (2, 2)
    assert ring["events"]["verified"] is True
    assert (ring["overdue"], ring["alarms"], ring["nodes"]) == ([], [], [])
    assert [key["state"] for key in ring["keys"]] == ["active", "published"]


def test_the_members_of_the_state_stay(keyed):
    (ring,) = keyed.json("keys", "status")["rings"]
    assert set(ring) == {
        *("ring", "algorithm", "backend", "drive", "epoch", "frozen", "successor"),
        *("succeeded_at", "cautious_until", "claimed_until", "prepublication_seconds"),
        *("rotation_interval_seconds", "maximum_lifetime_seconds", "active", "next"),
        *("at_backend", "keys", "planned", "nodes", "readers", "due", "waits", "overdue"),
        *("alarms", "events", "history", "history_older", "destroyable"),
    }


def test_the_state_fits_a_terminal_of_80_columns(keyed):
    keyed.must("keys", "tick")
    shown = keyed.must("keys", "status", "es256")
    assert "version 1 since" in shown
    assert "the chain is whole" in shown
    # Whole key ids and long facts may be wider than the picture.
    drawn = [line for line in shown.splitlines() if line.startswith(("v1", "v2", "  ")) and line]
    assert max(len(line) for line in drawn if "░" in line or "█" in line) <= 80
    signing = next(line for line in drawn if line.endswith("signs"))
    assert "█" in signing


def test_the_longest_name_of_a_ring_fits_80_columns_and_is_whole(cli, tmp_path):
    ring = "r" + "x" * 38 + "z"
    rings = {"es256": {"algorithm": "ES256"}, ring: {"algorithm": "ES256"}}
    cli.config = write_settings(tmp_path, cli.database_url, {"keys": {"rings": rings}})
    cli.must("keys", "init")
    cli.must("keys", "freeze", ring, "--reason", "a reason")
    shown = cli.must("keys", "status", ring).splitlines()
    assert shown[0].startswith(f"{ring}  ES256")
    assert shown[1].endswith("FROZEN")
    assert max(map(len, shown)) <= 80


def test_a_ring_without_a_key_that_signs_is_said_to_have_none(cli, tmp_path):
    """A leaked key may be the first of a new ring, which is published before it signs."""
    rings = {"es256": {"algorithm": "ES256"}, "new": {"algorithm": "ES256"}}
    cli.must("keys", "init")
    cli.config = write_settings(tmp_path, cli.database_url, {"keys": {"rings": rings}})
    cli.must("keys", "init")
    refused = cli.refused("keys", "revoke", "new", "--reason", "leaked", "--yes")
    assert "new:VERSION" in refused
    cli.must("keys", "revoke", "new:1", "--reason", "leaked", "--yes")


def test_looking_changes_nothing(keyed):
    before = keyed.json("keys", "list"), keyed.audit_records()
    keyed.must("keys", "status")
    assert (keyed.json("keys", "list"), keyed.audit_records()) == before


def test_a_hand_edit_of_an_event_is_seen(keyed):
    change(keyed, "UPDATE key_event SET actor = 'nobody'")
    (ring,) = keyed.json("keys", "status")["rings"]
    assert ring["events"]["verified"] is False
    assert "ALARM events of es256" in keyed.must("keys", "status")


def test_what_is_overdue_is_named(keyed):
    change(
        keyed,
        "UPDATE signing_key SET activate_at = '2020-01-01 00:00:00+00:00' WHERE version = 1",
    )
    change(keyed, "DELETE FROM key_event")
    change(keyed, "DELETE FROM signing_key WHERE version = 2")
    (ring,) = keyed.json("keys", "status")["rings"]
    assert any("has signed for" in each for each in ring["overdue"])
    assert any("no standby" in each for each in ring["overdue"])
    assert "OVERDUE es256" in keyed.must("keys", "status")


def test_a_node_that_is_behind_is_named(keyed):
    change(
        keyed,
        "INSERT INTO key_node (node, ring, epoch_seen, seen_at, clock_offset_seconds) "
        "VALUES ('host/1', 'es256', 0, :at, 9.5)",
        at="2999-01-01 00:00:00+00:00",
    )
    change(keyed, "UPDATE key_ring SET changed_at = :at", at=f"{datetime.now(UTC):%F %T}+00:00")
    (node,) = keyed.json("keys", "status")["rings"][0]["nodes"]
    assert node["behind"] is False, "it had no time to read the change"
    change(keyed, "UPDATE key_ring SET changed_at = :at", at="2020-01-01 00:00:00+00:00")
    (node,) = keyed.json("keys", "status")["rings"][0]["nodes"]
    assert (node["behind"], node["silent"], node["clock_off"]) == (True, False, True)
    shown = keyed.must("keys", "status")
    assert "BEHIND" in shown
    assert "CLOCK OFF" in shown


def test_readers_that_have_not_fetched_are_named(keyed):
    change(
        keyed,
        "INSERT INTO jwks_reader (user_agent, network, last_fetched_at) "
        "VALUES ('old/1', '10.0.0.0/24', '2026-01-01 00:00:00+00:00'), "
        "('curious/2', '10.0.1.0/24', '2999-01-01 00:00:00+00:00'), "
        "('slow/3', '10.0.2.0/24', :lately)",
        lately=keyed.json("keys", "list")[0]["created_at"].replace("T", " ").replace("Z", "+00:00"),
    )
    readers = keyed.json("keys", "status")["rings"][0]["readers"]
    assert (readers["seen"], readers["fetched_since"]) == (2, 1)
    assert [each["user_agent"] for each in readers["missing"]] == ["slow/3"]
    told = keyed.must("keys", "rotate", "--dry-run")
    assert "1 of 2 readers of the JWKS seen in 7 days has fetched it since" in told
    assert "slow/3 (10.0.2.0/24)" in told


def test_the_calendar_is_drawn(keyed, tmp_path):
    keyed.must("keys", "tick")
    keyed.must("keys", "status", "--svg", tmp_path / "keys.svg")
    root = ET.parse(tmp_path / "keys.svg").getroot()  # noqa: S314 - our own
    name = "{http://www.w3.org/2000/svg}"
    assert (root.tag, root.get("role")) == (f"{name}svg", "img")
    described = root.find(f"{name}desc").text
    assert root.get("aria-labelledby") == "title description"
    for key in keyed.json("keys", "list"):
        assert key["kid"] in described
    words = " ".join(element.text for element in root.iter(f"{name}text"))
    assert "version 2 begins to sign" in words
    assert "now, 20" in words
    assert "prefers-color-scheme: dark" in root.find(f"{name}style").text


class Page(HTMLParser):
    """A page: its tags and ids, and the classes of the shapes in pictures and in the legend."""

    def __init__(self):
        super().__init__()
        self.ids, self.references, self.tags, self.text = [], [], [], ""
        self.marks, self._place = {"picture": set(), "legend": set()}, ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.references += [value for name, value in attrs if name in {"src", "href"}]
        klass = dict(attrs).get("class")
        if klass in self.marks:
            self._place = klass
        elif klass in KINDS and tag != "text":
            self.marks[self._place].add(klass)

    def handle_data(self, data):
        self.text += data


def test_the_page_for_a_ticket_needs_nothing_else(cli, tmp_path):
    rings = {"keys": {"rings": {"rs256": {"algorithm": "RS256"}}}}
    cli.config = write_settings(tmp_path, cli.database_url, rings)
    cli.must("keys", "init")
    cli.must("keys", "tick")
    cli.must("keys", "status", "--html", tmp_path / "keys.html")
    page = Page()
    page.feed((tmp_path / "keys.html").read_text())
    assert page.references == []
    assert len(page.ids) == len(set(page.ids)) > 4
    assert page.tags.count("svg") == 2 + len(MARKS), "a picture each, and the samples of the legend"
    assert "script" not in page.tags
    assert page.marks["picture"] == page.marks["legend"] - {"tainted", "cross"}
    assert page.marks["legend"] == {mark.name for mark in MARKS}
    for mark in MARKS:
        assert mark.sentence() in page.text


def test_names_from_outside_stay_text(keyed, tmp_path):
    change(
        keyed,
        "INSERT INTO key_node (node, ring, epoch_seen, seen_at, clock_offset_seconds) "
        "VALUES ('<script>alert(1)</script>', 'es256', 0, '2999-01-01 00:00:00+00:00', 0)",
    )
    keyed.must("keys", "status", "--html", tmp_path / "keys.html")
    assert "<script>" not in (tmp_path / "keys.html").read_text()


def test_a_server_without_rings_says_what_to_do(cli):
    assert "keys init" in cli.must("keys", "status")
    assert json.loads(cli.must("keys", "status", "--json"))["rings"] == []


def test_the_day_of_a_healthy_move_is_nothing_to_look_at(cli, tmp_path):
    """Nor is it for `keys doctor`."""
    rings = {"es256": {"algorithm": "ES256"}, "further": {"algorithm": "ES256"}}
    cli.config = write_settings(tmp_path, cli.database_url, {"keys": {"rings": rings}})
    cli.must("keys", "init", "es256")
    cli.must("keys", "init", "further")
    cli.must("keys", "move", "es256", "--to", "further", "--reason", "CHG-1")
    page = tmp_path / "page.html"
    shown = cli.json("keys", "status", "--html", page)["rings"]
    assert [(ring["overdue"], ring["alarms"]) for ring in shown] == [([], []), ([], [])]
    shown_text = cli.must("keys", "status")
    for said in (shown_text, page.read_text()):
        assert "OVERDUE" not in said
        assert "ALARM" not in said
    findings = cli.json("keys", "doctor")["findings"]
    (waiting,) = (
        each
        for each in findings
        if (each["subject"], each["check"]) == ("further", "ring.active_key")
    )
    assert waiting["level"] == "ok"
    assert waiting["detail"].startswith("its first key signs from 20")
