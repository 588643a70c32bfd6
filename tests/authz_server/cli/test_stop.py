"""The kill switch at the command line: the extent first, the record after."""

import json

import pytest


@pytest.fixture
def parties(registered):
    """The command line with a resource server and two clients."""
    registered.must("client", "create", "bank", "--name", "Bank", "--scope", "mapper/resolve")
    return registered


@pytest.mark.parametrize(
    ("kind", "subject", "clients"),
    [
        ("scope", "mapper/link", ["ministry"]),
        ("client", "ministry", ["ministry"]),
        ("resource-server", "mapper", ["bank", "ministry"]),
        ("programme", "cash-2026", ["bank", "ministry"]),
    ],
)
def test_a_stop_shows_its_extent_asks_and_is_lifted(parties, kind, subject, clients):
    """Nothing is stopped before the answer; the records have reason and extent."""
    if kind == "programme":
        defined = parties.json(
            "stop", "define", subject, "--scope", "mapper.link", "--client", "bank"
        )
        assert (defined["scopes"], defined["clients"]) == (["mapper/link"], ["bank"])
        assert [each["name"] for each in parties.json("stop", "programmes")] == [subject]
    order = ("stop", kind, subject, "--reason", "INC-17")
    asked = parties.run(*order, input="n\n")
    assert asked.exit_code != 0
    assert f"Clients that hold them ({len(clients)}): {', '.join(clients)}." in asked.stderr
    assert "Resource servers: mapper." in asked.stderr
    assert parties.json("stop", "list") == []
    done = json.loads(parties.must(*order, "--json", "--yes"))
    assert (done["clients"], done["resource_servers"]) == (clients, ["mapper"])
    assert "stopped already" in parties.refused(*order, "--yes").splitlines()[-1]
    ((stop),) = parties.json("stop", "list")
    assert (stop["kind"], stop["subject"], stop["reason"]) == (kind, subject, "INC-17")
    assert subject in parties.must("stop", "list")
    if kind == "programme":
        assert "is stopped" in parties.refused("stop", "define", subject, "--client", "ministry")
    lift = ("stop", "lift", kind, subject, "--reason", "INC-17 is closed")
    assert f"{subject} is no longer stopped." in parties.must(*lift)
    assert "is not stopped" in parties.refused(*lift)
    assert [each[1:] for each in parties.audit_records()][-2:] == [
        ("stop.set", f"{kind}:{subject}"),
        ("stop.lifted", f"{kind}:{subject}"),
    ]


def test_a_list_of_clients_marks_the_stopped_ones(parties):
    """By a stop of their own, or of a programme; a chosen table stays as it was chosen."""
    assert "Stopped by" not in parties.must("client", "list")
    parties.must("stop", "define", "cash", "--client", "bank")
    for kind, subject in (("programme", "cash"), ("client", "ministry")):
        parties.must("stop", kind, subject, "--reason", "INC-17", "--yes")
    listed = parties.must("client", "list")
    assert "Stopped by" in listed
    assert "programme cash" in listed
    found = {each["id"]: each["stopped_by"] for each in parties.json("client", "list")}
    assert found == {"bank": "programme cash", "ministry": "client ministry"}
    assert "programme cash" not in parties.must("client", "list", "--columns", "id,state")
    parties.must("stop", "lift", "programme", "cash", "--reason", "INC-17 is closed")
    found = {each["id"]: each["stopped_by"] for each in parties.json("client", "list")}
    assert found == {"bank": None, "ministry": "client ministry"}


def test_the_audit_file_has_both_acts(parties):
    """With the reason and the figures."""
    parties.must("stop", "client", "ministry", "--reason", "INC-17", "--yes")
    parties.must("stop", "lift", "client", "ministry", "--reason", "closed")
    lines = (parties.config.parent / "audit.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines][-2:]
    assert [each["event"] for each in records] == ["stop.set", "stop.lifted"]
    assert [each["reason"] for each in records] == ["INC-17", "closed"]
    assert (records[0]["clients"], records[0]["in_force"]) == (1, 0)


def test_odd_lines_of_the_audit_file_do_not_end_an_order(parties):
    """Times without a zone, times that UTC does not have, and an expiry after every time."""
    path = parties.config.parent / "audit.jsonl"
    token = {"event": "token.issued", "client_id": "ministry", "scope": "land/read", "jti": "a"}
    good = {"time": "2026-01-01T00:00:00Z", "expires_at": 2**33}
    lines = [
        {**token, **good, "time": time}
        for time in ("0001-01-01T00:00:00", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00")
    ]
    lines += [{**token, **good, "expires_at": 10**30}, {**token, **good}]
    lines += [{**line, "event": "token.exchanged"} for line in lines]
    kept = path.read_text() if path.exists() else ""
    written = [json.dumps(line, separators=(",", ":")) for line in lines]
    path.write_text("".join(f"{line}\n" for line in written) + kept)
    done = parties.json("stop", "client", "ministry", "--reason", "INC-17", "--yes")
    assert done["in_force"] == 1
    parties.must("stop", "lift", "client", "ministry", "--reason", "closed")
    found = parties.must("audit", "search", "--client", "ministry")
    assert "2026-01-01" in found
    assert "0001-01-01" not in found
    parties.must("audit", "who", "--scope", "mapper/link", "--at", "2026-01-01T00:01:00Z")


def test_a_stop_needs_a_subject_that_exists_and_a_reason(parties):
    """Each refusal is a sentence, and nothing is stopped."""
    for kind, subject, word in (
        ("scope", "land/read", "scope list"),
        ("client", "mapper", "client list"),
        ("client", "unknown", "client list"),
        ("resource-server", "ministry", "resource-server list"),
        ("programme", "unknown", "stop define"),
    ):
        assert word in parties.refused("stop", kind, subject, "--reason", "INC-17", "--yes")
    assert "--reason" in parties.refused("stop", "client", "ministry", "--yes")
    assert "--reason" in parties.refused("stop", "client", "ministry", "--reason", " ", "--yes")
    assert "at least one" in parties.refused("stop", "define", "empty")
    assert parties.json("stop", "list") == []
