"""Declarative files of which a part needs a second person: the whole application is one change."""

import hashlib
from dataclasses import replace

import pytest
from sqlalchemy import delete, insert, update

from authz_server.audit.pending_changes import PendingChange
from authz_server.operations.approvals import MAXIMUM_WAITING, MAXIMUM_WAITING_FILES
from authz_server.operations.permissions import Caller, Grant, Limits
from support.admin_site import require_problem
from support.approval_site import MONEY
from support.operators import add_operator

PATH = "/declaration"


def apply(approvals, text: str, query: str = "", **members):
    body = {"files": [{"name": "a.toml", "text": text}], **members}
    return approvals.api.send("POST", f"{PATH}{query}", json=body)


def paying(name: str, scope: str = MONEY) -> str:
    """Return a file with a client that pays, and one that does not."""
    return (
        f'[clients.{name}]\nname = "Pays"\nallowed_scopes = ["{scope}"]\n'
        f'[clients.{name}-too]\nname = "Reads"\nallowed_scopes = ["mapper/link"]\n'
    )


def file(approvals, name: str, **members) -> str:
    """File an application; return the id of its change."""
    answer = apply(approvals, paying(name), "?reason=payroll", **members)
    assert answer.status_code == 202, answer.text
    assert approvals.api.get(f"/clients/{name}-too").status_code == 404
    return str(answer.json["id"])


def test_an_application_waits_as_a_whole_and_is_approved(approvals):
    """Nothing of it is done before; the records name the approver, and the acts their requester."""
    planned = apply(approvals, paying("payer"), "?dry_run=true").json
    assert planned["approval"] == {"acts": ["scope.grant_money"], "state": "pending", "changes": []}
    change = file(approvals, "payer")
    shown = approvals.api.get(f"/changes/{change}").json
    assert (shown["operation"], shown["reason"]) == ("apply_declaration", "payroll")
    assert shown["diff"]["client payer"]["after"]["allowed_scopes"] == [MONEY]
    require_problem(approvals.decide(change, "approve", by="caller"), 403, "refused")
    approved = approvals.decide(change, "approve")
    assert approved.status_code == 200, approved.text
    assert approvals.api.get("/clients/payer").json["allowed_scopes"] == [MONEY]
    (record,) = approvals.records("subject=payer&action=client.created")
    assert record["actor"] == "client:caller via api"
    assert record["detail"]["approved_by"] == "client:second via api"
    assert record["detail"]["change"] == change
    assert apply(approvals, paying("payer")).json["changes"] == []


def test_a_repeated_application_that_waits_answers_its_change(approvals):
    """Though it was decided since; it is neither planned nor filed again."""

    def send():
        body = {"files": [{"name": "a.toml", "text": paying("twice")}], "generate_secrets": True}
        headers = {"Idempotency-Key": "waits"}
        return approvals.api.send("POST", PATH, json=body, headers=headers)

    first, second = send(), send()
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json["id"] == first.json["id"]
    assert first.json["answer"]["secrets"]
    assert second.json["answer"] is None
    assert approvals.decide(first.json["id"], "reject", by="third").status_code == 200
    third = send().json
    assert (third["id"], third["state"]) == (first.json["id"], "rejected")


def test_an_approved_application_whose_plan_differs_fails(approvals):
    """What the plan rests on was changed meanwhile."""
    change = file(approvals, "stale")
    approvals.api.new_client(id="stale-too")
    require_problem(approvals.decide(change, "approve"), 412, "precondition-failed")
    assert approvals.state(change) == "failed"
    assert approvals.api.get("/clients/stale").status_code == 404


def test_an_approved_application_that_was_made_meanwhile_fails(approvals):
    """Nothing of it would need an approval now, and its plan is another one."""
    change = file(approvals, "made")
    done = apply(approvals, paying("made"), "?break_glass=true&reason=flood")
    assert done.status_code == 200, done.text
    require_problem(approvals.decide(change, "approve"), 412, "precondition-failed")
    assert approvals.state(change) == "failed"


@pytest.mark.parametrize(("act", "by"), [("reject", "third"), ("withdraw", "caller")])
def test_a_closed_application_is_not_applied(approvals, act, by):
    change = file(approvals, f"closed-by-{act}")
    assert approvals.decide(change, act, by=by).status_code == 200
    assert approvals.api.get(f"/clients/closed-by-{act}").status_code == 404
    require_problem(approvals.decide(change, "approve"), 409, "conflict")


def test_a_client_does_not_approve_what_changes_it(approvals):
    """The application concerns it as a change of its own would."""
    text = paying("ours") + '[clients.third]\nname = "Third"\nallowed_scopes = ["mapper/link"]\n'
    change = apply(approvals, text).json["id"]
    refused = require_problem(approvals.decide(change, "approve", by="third"), 403, "refused")
    assert "concerns you" in refused["detail"]
    assert approvals.decide(change, "withdraw", by="caller").status_code == 200


@pytest.mark.parametrize("act", ["approve", "break-glass"])
def test_the_secrets_of_an_application_work_once_it_is_approved(approvals, act):
    """They are in the answer to the request alone; an imported one is in no answer."""
    name, api = f"secret-{act}", approvals.api
    members = {"generate_secrets": True, "imported_secrets": {f"{name}-too": "i" * 30}}
    text = "\n".join(
        f'{line}\nauthentication_method = "client_secret_post"' if line.startswith("[") else line
        for line in paying(name).splitlines()
    )
    answer = apply(approvals, text, **members)
    assert answer.status_code == 202, answer.text
    assert answer.json["answer"]["secrets"].keys() == {name}
    secret = answer.json["answer"]["secrets"][name]
    shown = api.get(f"/changes/{answer.json['id']}")
    assert secret not in shown.text
    by = "second" if act == "approve" else "caller"
    done = approvals.decide(answer.json["id"], act, by=by, reason="flood")
    assert done.status_code == 200, done.text
    assert secret not in done.text
    api.public.extensions["authz_server"].feed.poll()
    for client, value in ((name, secret), (f"{name}-too", "i" * 30)):
        api.secrets[client] = value
        refused = api.ask_token("keys:read", client=client)
        # It authenticates, and has no scope of the admin API.
        assert refused.json["error"] == "invalid_scope", refused.text
        (stored,) = api.get(f"/clients/{client}/secrets").json["items"]
        assert stored["imported"] == (value == "i" * 30)


def test_a_scope_that_pays_keeps_its_risk_without_a_second_person(approvals):
    """Neither a lower risk, nor fewer spellings, nor its removal makes a grant of it free."""
    scope = '[scopes."{}/pay"]\nrisk = "{}"\naliases = [{}]\n'
    assert apply(approvals, scope.format("tolls", "money", '"tolls.pay"')).status_code == 200
    for text, members in (
        (scope.format("tolls", "read", '"tolls.pay"'), {}),
        (scope.format("tolls", "money", ""), {}),
        (scope.format("roads", "read", ""), {"prune": True}),
    ):
        waiting = apply(approvals, text, **members)
        assert waiting.status_code == 202, waiting.text
        assert waiting.json["acts"] == ["scope.grant_money"]
        assert approvals.api.get("/scopes/tolls%2Fpay").json["risk"] == "money"
        assert approvals.decide(waiting.json["id"], "reject", by="third").status_code == 200
    spelled = scope.format("tolls", "money", '"tolls.pay", "tolls:pay"')
    assert apply(approvals, spelled).status_code == 200


def test_an_application_without_such_an_act_is_done_at_once(approvals):
    """Its secrets are made at once."""
    done = apply(approvals, paying("quiet", "mapper/link"), generate_secrets=True)
    assert done.json["secrets"].keys() == {"quiet", "quiet-too"}


def test_glass_is_broken_at_once_or_afterwards(approvals):
    """A second person confirms one change in both cases."""
    answer = apply(
        approvals, paying("urgent"), "?break_glass=true&reason=flood", generate_secrets=True
    )
    assert answer.status_code == 200, answer.text
    assert answer.json["secrets"]
    (change,) = answer.json["approval"]["changes"]
    assert approvals.state(change) == "unconfirmed"
    assert approvals.decide(change, "confirm").status_code == 200
    change = file(approvals, "late")
    done = approvals.decide(change, "break-glass", by="caller", reason="flood")
    assert done.status_code == 200, done.text
    assert approvals.api.get("/clients/late").json["allowed_scopes"] == [MONEY]
    assert approvals.decide(change, "confirm", by="third").status_code == 200


def test_who_breaks_the_glass_has_the_permissions_of_the_files_then(approvals):
    """Those of each section, and every administrative scope that they give."""
    change = file(approvals, "lost")
    token = approvals.api.new_token("changes:read", "scopes:write")
    tag = approvals.api.get(f"/changes/{change}").headers["ETag"]
    refused = approvals.api.send(
        "POST",
        f"/changes/{change}/break-glass",
        token=token,
        json={"reason": "flood"},
        headers={"If-Match": tag},
    )
    require_problem(refused, 403, "refused")
    assert approvals.state(change) == "pending"


def test_the_texts_of_files_are_read_by_their_approval_alone(approvals):
    """A change describes them; a list leaves out a long plan, and a settled change its files."""
    text = paying("many") + "".join(
        f'[clients.many-{number}]\nname = "{"n" * 100}"\nallowed_scopes = ["mapper/link"]\n'
        for number in range(100)
    )
    filed = apply(approvals, text)
    assert filed.status_code == 202, filed.text
    change = filed.json["id"]
    (described,) = filed.json["arguments"]["files"]
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert described == {"name": "a.toml", "sha256": digest, "bytes": len(text)}
    listed = approvals.api.get("/changes?state=pending")
    (entry,) = (each for each in listed.json["items"] if each["id"] == change)
    shown = approvals.api.get(f"/changes/{change}").json
    assert len(shown["diff"]) == 102
    assert entry == {**shown, "diff": None}
    assert _files_of(approvals, change)[0]["text"] == text
    assert approvals.decide(change, "approve").status_code == 200
    assert approvals.api.get("/clients/many-99").status_code == 200
    assert _files_of(approvals, change) is None


def _files_of(approvals, change: str):
    with approvals.api.services.database.reading() as session:
        return session.get(PendingChange, change).files


def test_one_requester_has_a_limited_number_of_changes_that_wait(approvals):
    """Of applications fewer: each holds its files; a request beyond the number changes nothing."""
    services = approvals.api.services
    with services.database.transaction() as session:
        # What other tests left.
        session.execute(delete(PendingChange))
    filed = [file(approvals, f"full-{number}") for number in range(MAXIMUM_WAITING_FILES)]
    refused = require_problem(apply(approvals, paying("one-more")), 409, "conflict")
    assert f"{MAXIMUM_WAITING_FILES} applications of files of yours wait" in refused["detail"]
    scopes = {"id": "beside", "name": "Beside", "allowed_scopes": [MONEY]}
    beside = approvals.api.send("POST", "/clients", json=scopes)
    assert beside.status_code == 202, beside.text
    with services.database.transaction() as session:
        row = session.get(PendingChange, beside.json["id"])
        columns = [each for each in PendingChange.__table__.c if each.name != "files"]
        copied = {each.name: getattr(row, each.name) for each in columns}
        further = range(MAXIMUM_WAITING - len(filed) - 1)
        session.execute(insert(PendingChange), [{**copied, "id": f"copy-{n}"} for n in further])
    refused = require_problem(
        approvals.api.send("POST", "/clients", json={**scopes, "id": "too"}), 409, "conflict"
    )
    assert f"{MAXIMUM_WAITING} changes of yours wait" in refused["detail"]
    with services.database.transaction() as session:
        session.execute(delete(PendingChange).where(PendingChange.id.like("copy-%")))
    for change in (*filed, beside.json["id"]):
        assert approvals.decide(change, "withdraw", by="caller").status_code == 200
    assert apply(approvals, paying("one-more")).status_code == 202


def test_an_operation_of_a_later_release_is_refused_and_waits_on(approvals):
    """A node of that release filed it during an upgrade."""
    change = file(approvals, "later")
    with approvals.api.services.database.transaction() as session:
        session.execute(
            update(PendingChange).where(PendingChange.id == change).values(operation="later.act")
        )
    for act, by in (("approve", "second"), ("break-glass", "caller")):
        answer = approvals.decide(change, act, by=by, reason="flood")
        refused = require_problem(answer, 409, "conflict")
        assert "does not know the operation 'later.act'" in refused["detail"]
        assert approvals.state(change) == "pending"
    assert approvals.decide(change, "reject", by="third").status_code == 200


def test_an_application_within_limits_waits_and_is_approved_within_them(approvals):
    """Its approver has no limits: pruning still removes what the requester may remove alone."""
    api = approvals.api
    for name, organisation in (("ours-1", "Ours"), ("theirs-1", "Theirs")):
        api.new_client(id=name, organisation=organisation)
    permissions = frozenset({"clients:read", "clients:write", "changes:read"})
    limits = Limits(organisations=frozenset({"Ours"}))
    add_operator(api.services, "ada", "client-manager", organisations=["Ours"])
    caller = Caller(
        name="ada",
        kind="operator",
        way="console",
        grants=(Grant(permissions=permissions, limits=limits),),
        operator_id="id-of-ada",
        authenticated_at=api.clock(),
    )

    def send(name: str, who: Caller = caller):
        members = f'name = "Ours"\norganisation = "Ours"\nallowed_scopes = ["{MONEY}"]\n'
        text = f"[clients.{name}]\n{members}"
        body = {"files": [{"name": "a.toml", "text": text}], "prune": True}
        return api.app.api.perform(who, "POST", PATH, body=body)

    filed = send("ours-2")
    assert filed.status == 202, filed.body
    change = filed.body["id"]
    seen = api.app.api.perform(caller, "GET", f"/changes/{change}")
    assert seen.status == 200, seen.body
    assert seen.body["diff"].keys() == {"client ours-1", "client ours-2"}
    approved = approvals.decide(change, "approve")
    assert approved.status_code == 200, approved.text
    assert api.get("/clients/ours-2").json["allowed_scopes"] == [MONEY]
    assert api.get("/clients/ours-1").status_code == 404
    assert api.get("/clients/theirs-1").status_code == 200
    late = send("ours-3").body["id"]
    elsewhere = replace(caller.grants[0], limits=Limits(organisations=frozenset({"Theirs"})))
    for grants, status in (((elsewhere,), 403), (caller.grants, 200)):
        done = api.app.api.perform(
            replace(caller, grants=grants),
            "POST",
            f"/changes/{late}/break-glass",
            body={"reason": "flood"},
            if_match="*",
        )
        assert done.status == status, done.body
    assert api.get("/clients/theirs-1").status_code == 200
    assert api.get("/clients/ours-3").status_code == 200


def test_a_file_with_roles_waits_for_a_second_person(approvals):
    """An operator whom it concerns does not decide on it; a programme alone does not wait."""
    api = approvals.api
    api.new_client(id="payer-2")
    programme = apply(approvals, '[programmes.alone]\nclients = ["payer-2"]\n')
    assert programme.status_code == 200, programme.text
    filed = apply(
        approvals,
        '[operators.gil]\nroles = ["security-officer"]\n'
        '[programmes.alone]\nscopes = ["mapper/link"]\n',
    )
    assert filed.status_code == 202, filed.text
    change = filed.json["id"]
    assert filed.json["acts"] == ["operator.change_role"]
    shown = api.get(f"/changes/{change}").json
    assert shown["arguments"]["operators"] == ["gil"]
    assert shown["diff"]["operator gil"]["after"] == {"roles": ["security-officer"]}
    require_problem(api.get("/operators/gil"), 404, "not-found")
    assert api.get("/programmes/alone").json["scopes"] == []
    approved = approvals.decide(change, "approve")
    assert approved.status_code == 200, approved.text
    assert api.get("/operators/gil").json["permissions"] != []
    assert api.get("/programmes/alone").json["clients"] == []
    (record,) = approvals.records("action=operator.created&subject=gil")
    assert record["detail"]["approved_by"] == "client:second via api"
    assert record["detail"]["diff"]["name"] == {"before": None, "after": "gil"}


def test_glass_is_broken_by_who_gives_no_role_that_it_may_not_give(approvals):
    """Roles may be taken away and officers disabled, at the request and afterwards alike."""
    api = approvals.api
    officer, auditor = 'roles = ["security-officer"]\n', 'roles = ["auditor"]\n'
    text = f"[operators.ida]\n{officer}[operators.jon]\n{officer}[operators.kim]\n{officer}"
    done = apply(approvals, text, "?break_glass=true&reason=test")
    assert done.status_code == 200, done.text
    token = api.new_token("operators:write", "operators:read", "changes:read")

    def file_and_break(text: str, by: str):
        body = {"files": [{"name": "a.toml", "text": text}]}
        filed = api.send("POST", PATH, json=body, token=by)
        assert filed.status_code == 202, filed.text
        path = f"/changes/{filed.json['id']}"
        tag = {"If-Match": api.get(path).headers["ETag"]}
        broken = api.send(
            "POST", f"{path}/break-glass", token=token, json={"reason": "test"}, headers=tag
        )
        return filed.json["id"], broken

    demoted = f"[operators.ida]\n[operators.jon]\nenabled = false\n{officer}"
    _, broken = file_and_break(demoted, token)
    assert broken.status_code == 200, broken.text
    assert api.get("/operators/ida").json["roles"] == []
    assert api.get("/operators/jon").json["state"] == "disabled"
    # The requester had more permissions then.
    change, broken = file_and_break(f"[operators.ida]\n{auditor}", api.token())
    refused = require_problem(broken, 403, "refused")
    assert "permit what the caller may not do" in refused["detail"]
    assert approvals.state(change) == "pending"
    assert api.get("/operators/ida").json["roles"] == []
    approved = approvals.decide(change, "approve")
    assert approved.status_code == 200, approved.text
    assert [each["role"] for each in api.get("/operators/ida").json["roles"]] == ["auditor"]
