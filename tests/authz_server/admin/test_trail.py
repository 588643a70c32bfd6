"""The audit trail and the reports by the API."""

import json

import pytest

from authz_server.admin.long_reads import LongReads
from authz_server.admin.problems import Problem
from authz_server.admin.resources.records import lone_reports
from authz_server.operations.audit.verify import verify_audit
from support.admin_site import require_problem, running_admin_site


def test_audit_records_are_filtered_by_client_scope_and_key(site):
    site.new_client(id="trail-payer", allowed_scopes=["disburse/disburse"])
    site.new_client(id="trail-reader", allowed_scopes=["mapper/unlink"])

    def subjects(query):
        answer = site.get(f"/audit?action=client.created&{query}")
        assert answer.status_code == 200, answer.text
        return {each["subject"] for each in answer.json["items"]} & {"trail-payer", "trail-reader"}

    assert subjects("client=trail-payer") == {"trail-payer"}
    assert subjects("scope=disburse") == {"trail-payer"}
    assert subjects("scope=mapper.unlink") == {"trail-reader"}
    ring = site.get("/audit?key=es256").json["items"]
    kid = site.get("/rings/es256/keys").json["items"][0]["kid"]
    assert ring == [] or ring[0]["subject"] == "es256"
    assert {each["subject"] for each in site.get(f"/audit?key={kid}").json["items"]} <= {kid}
    require_problem(site.get("/audit?scope="), 400, "invalid-request")


def test_the_chain_is_verified(site):
    services = site.services
    services.audit_checkpoints.seal_audit_records()
    services.audit_checkpoints.write_audit_checkpoint()
    answer = site.get("/audit/verify").json
    assert answer["intact"], answer["findings"]
    assert answer["stored"]["blocks"] > 0


def test_who_could_is_answered(site):
    site.new_client(id="trail-who", allowed_scopes=["mapper/txn/on-status"])
    answer = site.get("/audit/who?scope=mapper/txn/on-status&at=2999-01-01T00:00:00Z").json
    assert [each["client_id"] for each in answer["could"]] == ["trail-who"]
    earlier = site.get("/audit/who?scope=mapper/txn/on-status&at=2000-01-01T00:00:00Z").json
    assert earlier["could"] == []
    assert (answer["known"], earlier["known"]) == (True, True)
    misspelled = site.get("/audit/who?scope=mapper/txn/on-statsu&at=2999-01-01T00:00:00Z").json
    assert (misspelled["known"], misspelled["could"]) == (False, [])
    require_problem(site.get("/audit/who?scope=mapper"), 400, "invalid-request")
    require_problem(site.get("/audit/who?scope=mapper&at=yesterday"), 400, "invalid-request")


@pytest.mark.parametrize("report", ["least-privilege?days=1", "owners"])
def test_reports_are_answered(site, report):
    answer = site.get(f"/reports/{report}")
    assert answer.status_code == 200, answer.text
    require_problem(site.get("/reports/least-privilege?days=0"), 400, "invalid-request")


def test_clients_are_filtered_by_last_use(site):
    site.new_client(id="trail-unused")
    found = site.get("/clients?q=trail-unused&unused_since=2999-01-01T00:00:00Z").json["items"]
    assert [each["id"] for each in found] == ["trail-unused"]
    due = site.get("/clients?q=trail-unused&secret_ends_before=2999-01-01T00:00:00Z").json["items"]
    assert due == []


@pytest.fixture(scope="module")
def payer(site) -> str:
    """A client that was issued three tokens, and refused one."""
    body = {"id": "found", "name": "F", "identifier": "https://found.example"}
    body |= {"scopes": ["mapper/link"], "take_over": True}
    assert site.send("POST", "/resource-servers", json=body).status_code == 201
    made = site.new_client(
        id="trail-found", allowed_scopes=["mapper/link"], authentication_method="client_secret_post"
    )
    site.secrets["trail-found"] = made["secret"]["value"]
    site.public.extensions["authz_server"].feed.poll()
    for _ in range(3):
        site.new_token("mapper/link", client="trail-found", resource="https://found.example")
    assert site.ask_token("disburse/disburse", client="trail-found").status_code == 400
    return "trail-found"


def test_issued_tokens_and_refusals_are_found(site, payer):
    """By client, scope, event, time and the id of a token, with the changes, newest first."""

    def search(query: str) -> list[dict]:
        answer = site.get(f"/audit/search?{query}")
        assert answer.status_code == 200, answer.text
        assert answer.json["files"] == [str(site.audit_path)]
        assert answer.json["tokens_recorded"] == "files"
        return answer.json["items"]

    found = search(f"client={payer}")
    events = [each["event"] for each in found]
    assert events.count("token.issued") == 3
    assert {"token.refused", "client.created"} <= set(events)
    assert [each["at"] for each in found] == sorted((each["at"] for each in found), reverse=True)
    assert {each["source"] for each in found} == {"stored", site.audit_path.name}
    (issued, *_) = search(f"client={payer}&scope=mapper/link&action=token.issued")
    jti = issued["detail"]["jti"]
    assert [each["detail"]["jti"] for each in search(f"jti={jti}")] == [jti]
    assert search(f"client={payer}&until=2000-01-01T00:00:00Z") == []
    assert {each["detail"]["ring"] for each in search("ring=es256")} == {"es256"}
    assert search("ring=nothing") == []
    pages, cursor = [], ""
    while cursor is not None:
        page = site.get(
            f"/audit/search?client={payer}&limit=1{cursor and f'&cursor={cursor}'}"
        ).json
        pages += page["items"]
        cursor = page["next"]
    assert pages == found
    for wrong in ("limit=0", "since=yesterday", "cursor=x", "nothing=1"):
        assert site.get(f"/audit/search?{wrong}").status_code == 400
    for extreme in ("since=0001-01-01T00:00:00Z", "until=9999-12-31T23:59:59Z"):
        assert site.get(f"/audit/search?limit=1&{extreme}").status_code == 200


def test_the_answer_names_where_tokens_are_recorded(database_url, prepare, tmp_path):
    """If the records go to a stream, this server cannot read them back."""
    overrides = {"audit": {"destination": "stderr"}}
    prepare(database_url, tmp_path)
    with running_admin_site(tmp_path, database_url, overrides) as elsewhere:
        answer = elsewhere.get("/audit/search?client=caller").json
        assert (answer["tokens_recorded"], answer["destination"]) == ("elsewhere", "stderr")
        assert answer["files"] == []
        assert {each["source"] for each in answer["items"]} == {"stored"}
        who = elsewhere.get("/audit/who?scope=search&at=2026-01-01T14:05:00Z").json
        assert (who["destination"], who["files"], who["held"]) == ("stderr", [], [])


def test_one_long_reading_leaves_other_requests_alone(site):
    """A second one is answered when to repeat it; one that takes too long ends."""
    reads = site.app.api.long_reads
    with reads.one():
        for path in ("/audit/verify", "/audit/who?scope=search&at=2026-01-01T00:00:00Z"):
            problem = site.get(path)
            require_problem(problem, 503, "unavailable")
            assert int(problem.headers["Retry-After"]) > 0
        assert site.get("/clients?limit=1").status_code == 200
    with pytest.raises(Problem) as refused, LongReads(7, longest_seconds=0).one():
        verify_audit(site.services)
    assert refused.value.headers == {"Retry-After": "7"}
    assert "authz-server audit" in refused.value.detail
    assert site.get("/audit/verify").status_code == 200


def test_one_report_of_least_privilege_is_made_at_a_time(site):
    """It takes seconds with 100,000 clients: several would take the threads of all requests."""
    seconds = site.services.settings.server.retry_after_seconds
    with lone_reports(seconds).one():
        refused = site.get("/reports/least-privilege")
        require_problem(refused, 503, "unavailable")
        assert refused.headers["Retry-After"] == str(seconds)
        assert site.get("/clients?limit=1").status_code == 200
    assert site.get("/reports/least-privilege").status_code == 200


@pytest.mark.parametrize("event", [[], {}, ["token.issued"], None, 5], ids=repr)
@pytest.mark.parametrize("query", ["", "client=caller", "action=token."])
def test_a_line_that_is_no_record_hides_no_other(site, event, query):
    """Whoever can write to the file would otherwise end every search of it."""
    site.new_token()
    line = site.audit_path.read_text().splitlines()[-1]
    altered = json.loads(line) | {"event": event, "jti": "altered"}
    with site.audit_path.open("a") as file:
        file.write(f"{json.dumps(altered)}\n")
    answer = site.get(f"/audit/search?{query}")
    assert answer.status_code == 200, answer.text
    assert answer.json["items"]
    assert "altered" not in answer.text
