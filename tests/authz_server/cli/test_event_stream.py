"""`event-stream`: what an operator sets, sees and retries."""

import pytest

from authz_server.assembly.operator import operator_services
from authz_server.settings import load_settings
from authz_server.tokens.event_streams.models import EventStream, UndeliveredEvent

URL = "https://mapper.example/events"


def test_a_stream_is_set_shown_changed_and_deleted(registered):
    """Each act is recorded; a new stream begins at the latest record."""
    assert registered.json("event-stream", "list") == []
    assert "pushed" not in registered.must("event-stream", "set", "mapper", "--push", URL)
    shown = registered.json("event-stream", "show", "mapper")
    assert (shown["delivery"], shown["endpoint_url"], shown["events"]) == ("push", URL, [])
    assert (shown["pending"], shown["unread"], shown["undelivered"]) == (0, 1, 0)
    changed = registered.json("event-stream", "set", "mapper", "--poll", "--event", "stopped")
    assert (changed["delivery"], changed["endpoint_url"]) == ("poll", "")
    assert changed["events"] == ["stopped"]
    assert "poll" in registered.must("event-stream", "list")
    assert "Aborted" in registered.run("event-stream", "delete", "mapper", input="n\n").output
    registered.must("event-stream", "delete", "mapper", "--yes")
    assert "no event stream" in registered.refused("event-stream", "show", "mapper")
    assert [each[1:] for each in registered.audit_records()][-3:] == [
        ("event_stream.set", "mapper"),
        ("event_stream.set", "mapper"),
        ("event_stream.deleted", "mapper"),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("mapper",), "--push or --poll"),
        (("mapper", "--poll", "--push", URL), "--push or --poll"),
        (("mapper", "--push", "http://mapper.example/events"), "https://"),
        (("mapper", "--push", "https://user@mapper.example/"), "user"),
        (("mapper", "--push", "https://mapper.example:22/"), "port 22"),
        (("mapper", "--poll", "--event", "other"), "other"),
        (("ministry", "--poll"), "resource-server list"),
        (("unknown", "--poll"), "resource-server list"),
    ],
)
def test_a_wrong_stream_is_refused(registered, arguments, sentence):
    """With the remedy; nothing is stored."""
    assert sentence in registered.refused("event-stream", "set", *arguments)
    assert registered.json("event-stream", "list") == []


def test_undelivered_events_are_shown_and_retried(registered):
    registered.must("event-stream", "set", "mapper", "--push", URL)
    with (
        operator_services(load_settings(registered.config)) as services,
        services.database.transaction() as session,
    ):
        facts = {"event": "token-revoked", "subject": "jti-1", "error": "it refuses"}
        session.add(
            UndeliveredEvent(resource_server_id="mapper", record_id=1, at=services.clock(), **facts)
        )
        session.get(EventStream, "mapper").failures = 7
    ((left),) = registered.json("event-stream", "show", "mapper", "--undelivered")
    assert {name: left[name] for name in facts} == facts
    assert "it refuses" in registered.must("event-stream", "show", "mapper", "--undelivered")
    assert "1 event is delivered" in registered.must("event-stream", "retry", "mapper")
    shown = registered.json("event-stream", "show", "mapper")
    assert (shown["pending"], shown["undelivered"], shown["failures"]) == (1, 0, 0)
    assert "no event stream" in registered.refused("event-stream", "retry", "other")


def test_a_deleted_resource_server_has_no_stream(registered):
    registered.must("event-stream", "set", "mapper", "--poll")
    registered.must("resource-server", "delete", "mapper", "--yes")
    assert registered.json("event-stream", "list") == []
