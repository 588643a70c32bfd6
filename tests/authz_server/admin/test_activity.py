"""The tokens and refusals of the last hours, and the calendar and status of a ring."""

import json
import os
from datetime import timedelta

from authz_server.operations.activity import report_activity
from support.admin_site import require_problem


def test_tokens_and_refusals_are_counted(site):
    """By reason, by interval, and for one client; older ones are left out."""
    made = site.new_client(id="busy", authentication_method="client_secret_post")
    site.secrets["busy"] = made["secret"]["value"]
    site.public.extensions["authz_server"].feed.poll()
    before = site.get("/activity").json
    site.new_token()
    assert site.ask_token("mapper/unlink", client="busy").status_code == 400
    after = site.get("/activity").json
    assert after["issued"] == before["issued"] + 1
    assert after["refused"] == before["refused"] + 1
    assert sum(each["issued"] for each in after["intervals"]) == after["issued"]
    assert after["complete"]
    assert after["tokens"][0]["client_id"] == "caller"
    of_client = site.get("/activity?client=busy").json
    assert (of_client["issued"], of_client["refused"]) == (0, 1)
    assert of_client["reasons"] == [{"reason": "scope_not_granted", "count": 1}]
    site.clock.advance(7_200)
    site.forget_tokens()
    assert site.get("/activity").json["refused"] == 0
    answer = site.get("/activity?since=2001-01-01T00:00:00Z")
    assert require_problem(answer, 400, "invalid-request")["field"] == "since"


def test_lines_that_are_no_records_are_passed_over(site):
    """A file that others have written to is read as far as it can be."""
    since = site.clock() - timedelta(hours=1)
    known = report_activity(site.services, since)
    assert known is not None
    odd = [
        b"token.issued",
        b'{"event": "token.issued"}',
        b'{"event": "token.issued", "time": "2026-01-01T00:00:00"}',
        b'{"event": "token.refused", "time": 7, "count": "x"}',
        b"\xff token.refused",
        json.dumps({"event": "key.alarm", "detail": "token.issued", "time": "x"}).encode(),
    ]
    with site.audit_path.open("ab") as file:
        file.write(b"\n".join(odd) + b"\n")
    again = report_activity(site.services, since)
    assert again is not None
    assert (again.issued, again.refused) == (known.issued, known.refused)


def test_a_large_file_is_read_from_its_end(site):
    """The answer says from when on the records count."""
    size = site.audit_path.stat().st_size
    line = json.dumps(
        {
            "event": "token.issued",
            "time": site.clock().isoformat(),
            "client_id": "many",
            "detail": "x" * 1_000,
        }
    )
    with site.audit_path.open("a") as file:
        file.writelines(f"{line}\n" for _ in range(5_000))
    try:
        found = report_activity(site.services, site.clock() - timedelta(hours=1), client_id="many")
    finally:
        os.truncate(site.audit_path, size)
    assert found is not None
    assert not found.complete
    assert 3_000 < found.issued < 5_000
    assert found.since == site.clock()


def test_status_and_calendar_of_a_ring(site):
    """As the command line shows them; a ring that is not there is not found."""
    ring = site.get("/rings").json["items"][0]["name"]
    status = site.get(f"/rings/{ring}/status").json
    assert status["ring"] == ring
    assert status["events"]["verified"]
    calendar = site.get(f"/rings/{ring}/calendar").json
    assert calendar["svg"].startswith("<svg")
    assert "<style" not in calendar["svg"]
    assert calendar["description"].startswith(f"Ring {ring} at ")
    for path in ("/rings/nothing/status", "/rings/nothing/calendar"):
        require_problem(site.get(path), 404, "not-found")
