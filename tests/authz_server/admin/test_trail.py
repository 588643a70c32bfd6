"""The audit trail and the reports by the API."""

import pytest

from support.admin_site import require_problem


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
