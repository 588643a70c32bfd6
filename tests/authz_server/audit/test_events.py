"""The events: frozen, named, documented."""

import re

import msgspec
import pytest

from authz_server.audit.events import EVENTS, Act, ClientRefused, Event, SettingsLoaded, TokenIssued
from authz_server.errors import CAUSES, REASONS
from authz_server.metrics.definitions import ALARMS
from authz_server.operations.keys.doctor import ALARMS as DOCTORS_ALARMS
from support.source_tree import ROOT

DOCUMENT = ROOT / "docs" / "events.md"


def documented():
    """Return name -> documented fields; the fields that all share stand under "Every record"."""
    sections = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    return {
        section.splitlines()[0].strip("`"): re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        for section in sections
    }


def test_every_event_is_listed_once_under_its_own_name():
    names = [event.__struct_config__.tag for event in EVENTS]
    assert len(set(names)) == len(names)
    bases = (Event, ClientRefused, Act)
    defined = {event for base in bases for event in base.__subclasses__()}
    assert set(EVENTS) == defined - {ClientRefused, Act}
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", name) for name in names)


def test_the_document_lists_each_event_with_its_fields():
    """Case K124."""
    sections = documented()
    shared = [field.name for field in msgspec.structs.fields(Event)]
    assert sections.pop("Every record") == ["time", "event", "outcome", *shared]
    assert list(sections) == [event.__struct_config__.tag for event in EVENTS]
    for event in EVENTS:
        own = [f.name for f in msgspec.structs.fields(event) if f.name not in {*shared, "outcome"}]
        assert sections[event.__struct_config__.tag] == own, event


def test_every_event_says_its_outcome():
    """Case K124."""
    for event in EVENTS:
        assert "outcome" in event.__struct_fields__, event


def test_no_event_has_room_for_a_credential():
    """Case K122."""
    fields = {name for event in EVENTS for name in event.__struct_fields__}
    assert not {name for name in fields if re.search("secret|password|assertion|private", name)}
    assert {name for name in fields if "token" in name} == {"token_format"}


def test_an_event_cannot_be_changed_and_knows_its_name():
    event = SettingsLoaded(file="authz-server.toml")
    assert (event.name, event.outcome) == ("settings.loaded", "success")
    with pytest.raises(AttributeError):
        event.file = "other.toml"
    assert issubclass(TokenIssued, Event)


def test_the_document_lists_every_reason_of_a_refusal():
    """Case K124."""
    section = DOCUMENT.read_text().partition("### Reasons of refusals")[2].partition("\n## ")[0]
    listed = [
        name
        for names in re.findall(r"^- ((?:`[a-z_]+`[,\s]*)+):", section, re.MULTILINE)
        for name in re.findall(r"`([a-z_]+)`", names)
    ]
    assert len(set(listed)) == len(listed)
    # The record names the cause in its place.
    assert set(listed) == {*REASONS, *CAUSES} - {"client_authentication_failed"}


def test_the_document_lists_every_alarm():
    text = DOCUMENT.read_text()
    listed = {
        name
        for line in re.findall(r"^\| (`[a-z_]+\.[a-z_`., ]+) \|", text, re.MULTILINE)
        for name in re.findall(r"`([a-z_.]+)`", line)
    }
    by_outcome = {"backend.down", "backend.up", "sign.mismatch"}
    commands = (ROOT / "authz_server/operations/keys/audit.py").read_text()
    by_commands = DOCTORS_ALARMS | set(re.findall(r'Alarm\("([a-z_.]+)"', commands))
    assert len(by_commands) > len(DOCTORS_ALARMS)
    assert listed == {*ALARMS, *by_outcome, *by_commands}


def test_the_document_lists_every_change_of_keys():
    text = DOCUMENT.read_text()
    sources = [
        *(ROOT / "keys").glob("*.py"),
        *(ROOT / "keys/lifecycle").glob("*.py"),
        ROOT / "authz_server/operations/keys/orders.py",
    ]
    found = {
        name
        for source in sources
        if source.name != "testing.py"
        for name in re.findall(r'"((?:key|ring|emergency)\.[a-z_]+)"', source.read_text())
    }
    assert len(found) > 15
    assert [name for name in sorted(found) if f"`{name}`" not in text] == []
