"""Acts: the plan before, the condition, the result after, and the second editor."""

import re
from urllib.parse import quote

import pytest

from authz_server.admin.console.acts import ACTS
from authz_server.admin.routes import ROUTES
from support.console_site import CSRF, read_form


@pytest.fixture
def client_id(console) -> str:
    """A new client."""
    return console.site.new_client(authentication_method="client_secret_post")["id"]


def _client(console, client_id: str) -> dict:
    return console.site.get(f"/clients/{client_id}").json


def test_every_act_is_a_route_with_its_permission():
    """The console has no rule of its own."""
    table = {(route.method, re.sub(r"\{\w+\}", "{}", route.path)): route for route in ROUTES}
    for act in ACTS.values():
        route = table[act.method, act.path]
        assert route.permission in {act.permission, ""}, act.name
        assert route.instead == act.instead, act.name


def test_a_plan_changes_nothing_and_its_confirmation_does(console, client_id):
    """The plan shows the diff; the change has the operator and the way in its record."""
    page = console.page(f"/act/client-disable?id={client_id}")
    assert "This is a dry run" in page
    assert "<del><bdi>enabled</bdi></del>" in page
    assert _client(console, client_id)["state"] == "enabled"
    answer = console.send_form(page)
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/clients/client?id={client_id}&done=client-disable"
    assert _client(console, client_id)["state"] == "disabled"
    assert "The client is disabled." in console.page(answer.headers["Location"])
    record = console.site.get(f"/audit?subject={client_id}&limit=1").json["items"][0]
    assert record["action"] == "client.disabled"
    assert record["actor"] == "operator:ada via console"


@pytest.mark.parametrize("act", ACTS.values(), ids=lambda act: act.name)
def test_a_form_that_lacks_its_fields_is_refused(console, act, caplog):
    """As one of an older page may be: it is no fault of the server."""
    form = {**dict.fromkeys(act.names, "missing"), "csrf_token": CSRF}
    answer = console.post(f"/act/{act.name}", form)
    assert answer.status_code < 500, answer.text
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_a_form_without_its_fields_takes_nothing_away(console, client_id):
    """Of an operator and of a client that exist: a field that was not sent keeps its value."""
    operator, client, api = "/operators/grace", f"/clients/{client_id}", "/resource-servers/mapper"
    scope = "/scopes/mapper%2Flink"
    before = [console.site.get(item).json for item in (operator, client, api, scope)]
    assert before[0]["roles"]
    for act, name, item in (
        ("operator-edit", {"operator": "grace"}, operator),
        ("client-edit", {"id": client_id}, client),
        ("api-edit", {"id": "mapper"}, api),
        ("client-limits", {"id": client_id}, client),
        ("client-keys", {"id": client_id}, client),
        ("api-keys", {"id": "mapper"}, api),
        ("scope-edit", {"scope": "mapper/link"}, scope),
    ):
        tag = console.site.get(item).headers["ETag"]
        answer = console.post(f"/act/{act}", {**name, "tag": tag, "csrf_token": CSRF})
        assert answer.status_code < 500, answer.text
    after = [console.site.get(item).json for item in (operator, client, api, scope)]
    kept = (
        "roles",
        "state",
        "name",
        "organisation",
        "allowed_scopes",
        "token_format",
        "aliases",
        "risk",
        "authentication_method",
        "grant_types",
        "expires_at",
        "properties",
    )
    assert [[each.get(name) for name in kept] for each in after] == [
        [each.get(name) for name in kept] for each in before
    ]


def test_a_plan_that_changes_or_concerns_nothing_is_shown(console):
    """Of a client without secrets, of a programme without clients, and of what stands already."""
    site = console.site
    keyed = {"properties": {"jwks_uri": "https://client.example/jwks"}}
    client = site.new_client(authentication_method="private_key_jwt", **keyed)["id"]
    bare = {"name": "Bare", "scopes": ["mapper/unlink"]}
    assert site.send("POST", "/programmes", json=bare).status_code == 200
    plans = (
        f"client-enable?id={client}",
        f"client-revoke?id={client}",
        f"client-edit?id={client}&name=A+client&allowed_scopes=mapper/link",
        f"secret-rotate?id={client}",
        f"stop-set?kind=client&subject={client}",
        "stop-set?kind=programme&subject=Bare",
        "api-enable?id=mapper",
        "api-edit?id=mapper&name=Mapper",
        "scope-assign-several?id=mapper&scopes=mapper/link",
        "programme-define?name=Bare&scopes=mapper/unlink",
        "programme-delete?name=Bare",
        "scope-assign?scope=mapper/link&resource_server=mapper",
        "operator-enable?operator=grace",
        "operator-edit?operator=grace&roles=api-owner+resource_server%3Dmapper",
        "operator-log-out?operator=grace",
        "token-revoke?jti=0123456789abcdef",
    )
    for plan in plans:
        assert 'id="plan"' in console.page(f"/act/{plan}"), plan
    bare = site.change("DELETE", "/programmes/Bare")
    assert bare.status_code < 300, bare.text


def test_a_form_of_another_site_changes_nothing(console, client_id):
    """The token of the session is required, whatever else the form has."""
    action, fields = read_form(console.page(f"/act/client-disable?id={client_id}"))
    for token in ("", "odd"):
        answer = console.post(action, fields | {"csrf_token": token})
        assert answer.status_code == 403
    assert _client(console, client_id)["state"] == "enabled"


def test_the_second_editor_sees_what_changed_meanwhile(console, client_id):
    """412: nothing is changed, and the new plan rests on the present state."""
    path = f"/act/client-edit?id={client_id}&name=Mine&allowed_scopes=mapper/link"
    page = console.page(path)
    change = {"organisation": "Treasury"}
    assert console.site.change("PATCH", f"/clients/{client_id}", change).status_code == 200
    answer = console.send_form(page)
    assert answer.status_code == 412
    assert "Changed meanwhile" in answer.text
    assert "<ins><bdi>Treasury</bdi></ins>" in answer.text
    assert _client(console, client_id)["name"] == "A client"
    assert console.send_form(answer.text).status_code == 303
    assert _client(console, client_id)["name"] == "Mine"


def test_an_odd_snapshot_is_not_trusted(console, client_id):
    """It is shown as text, or not at all."""
    page = console.page(f"/act/client-disable?id={client_id}")
    for snapshot in ("", "[", "[1]", '"x"', '{"name": "<b>x</b>"}'):
        answer = console.send_form(page, tag='"odd"', snapshot=snapshot)
        assert answer.status_code == 412
        assert "<b>" not in answer.text


def test_a_secret_is_shown_once(console, client_id):
    """A form that is sent again shows none, and adds none."""
    page = console.page(f"/act/secret-rotate?id={client_id}&unused_days=7")
    assert "The secrets that work now, and their ends:" in page
    answer = console.send_form(page)
    assert answer.status_code == 200
    value = re.search(r'id="value"[^>]*value="([^"]+)"', answer.text)
    assert value is not None
    assert len(_client(console, client_id)["secrets"]) == 2
    again = console.send_form(page)
    assert again.status_code == 200
    assert value[1] not in again.text
    assert "This form was sent before." in again.text
    assert len(_client(console, client_id)["secrets"]) == 2
    assert value[1] not in console.page(f"/clients/client?id={client_id}")
    assert value[1] not in console.site.audit_path.read_text()


def test_a_client_is_registered_with_a_secret(console):
    """A value that breaks a rule is named, and the form keeps what was entered."""
    path = "/act/client-create?new_id={}&name=New&allowed_scopes=mapper/link%0D%0Amapper/unlink"
    refused = console.get(path.format("a%20b"))
    assert refused.status_code == 422
    assert 'value="New"' in refused.text
    answer = console.confirm(path.format("registered"))
    assert answer.status_code == 200
    assert "The new secret" in answer.text
    assert set(_client(console, "registered")["allowed_scopes"]) == {"mapper/link", "mapper/unlink"}


def test_the_extent_of_a_stop_is_shown_before_it_is_set(console):
    """It needs a reason; it is listed, and lifted with another one."""
    page = console.page("/act/stop-set?kind=scope&subject=mapper/link")
    assert "treasury" in page
    assert "Tokens in force" in page
    assert console.send_form(page, reason="").status_code == 200
    assert console.site.get("/stops").json["items"] == []
    answer = console.send_form(page, reason="a leak")
    assert answer.status_code == 303
    assert "a leak" in console.page("/apis")
    assert "A stop is in force:" in console.page("/clients/client?id=treasury")
    lifted = console.confirm("/act/stop-lift?kind=scope&subject=mapper/link", reason="mended")
    assert lifted.status_code == 303
    assert console.site.get("/stops").json["items"] == []
    # A stop of the API concerns the client too.
    body = {"kind": "resource-server", "subject": "mapper", "reason": "INC-2"}
    assert console.site.send("POST", "/stops", json=body).status_code == 201
    assert "A stop is in force:" in console.page("/clients/client?id=treasury")
    console.confirm("/act/stop-lift?kind=resource-server&subject=mapper", reason="mended")
    assert "A stop is in force:" not in console.page("/clients/client?id=treasury")


@pytest.mark.parametrize(
    ("kind", "subject", "page"),
    [
        ("client", "treasury", "/clients/client?id=treasury"),
        ("resource-server", "mapper", "/apis/api?id=mapper"),
        ("scope", "mapper/link", "/apis/scope?name=mapper%2Flink"),
    ],
)
def test_a_stop_leads_back_to_what_it_stops(console, kind, subject, page):
    """Set and lifted; the page of a client says what comes next."""
    address = f"kind={kind}&subject={subject}"
    text = console.page(f"/act/stop-set?{address}")
    screen = "Clients" if kind == "client" else "APIs and scopes"
    assert f'aria-current="page">{screen}<' in text
    stopped = console.send_form(text, reason="a leak").headers["Location"]
    lead = "?" if page == "/apis" else "&"
    assert stopped == f"{page}{lead}done=stop-set"
    text = console.page(stopped)
    assert ("What comes next: give it a new secret or key" in text) == (kind == "client")
    assert ("Has its secret or its key leaked?" in text) is False
    assert ('href="/clients/client?id=treasury"><code>' in console.page("/apis")) == (
        kind == "client"
    )
    lifted = console.confirm(f"/act/stop-lift?{address}", reason="over").headers["Location"]
    assert lifted == f"{page}{lead}done=stop-lift"
    told = "Has its secret or its key leaked? Choose Stop" in console.page(page)
    assert told == (kind == "client")


@pytest.mark.parametrize("act", ["stop-set", "stop-lift"])
@pytest.mark.parametrize(
    ("kind", "screen"),
    [("client", "Clients"), ("scope", "APIs and scopes"), ("resource-server", "APIs and scopes")],
)
def test_a_refused_form_of_a_stop_stays_on_its_screen(console, act, kind, screen):
    """Without a reason, of another site, or of what does not exist; its kind is in the form."""
    form = {"kind": kind, "subject": "absent", "csrf_token": CSRF}
    for fields in (form, {**form, "csrf_token": "odd"}, {**form, "reason": "a leak"}):
        text = console.post(f"/act/{act}", fields).text
        assert re.findall(r'aria-current="page">([^<]+)<', text) == [screen], text


_EDIT = {"name": "x & y", "allowed_scopes": "mapper/link", "tag": '"odd"'}


@pytest.mark.parametrize(
    ("act", "fields", "shown"),
    [
        ("client-revoke", {}, "/act/client-revoke?id={}"),
        ("client-edit", _EDIT, "/act/client-edit?id={}&name=x+%26+y&allowed_scopes="),
        ("secret-add", {"description": "second"}, "/clients/client?id={}&lang="),
        ("client-revoke", {"csrf_token": "odd"}, "/act/client-revoke?id={}&lang="),
    ],
)
def test_a_form_is_answered_in_each_language(console, client_id, act, fields, shown):
    """Its links lead to the plan, or else to the page that comes next: a form has no address."""
    answer = console.post(f"/act/{act}", {"id": client_id, "csrf_token": CSRF, **fields})
    links = re.findall(r'<li><a href="([^"]+)" lang="(\w+)"', answer.text)
    assert len(links) > 1
    for link, language in links:
        address = link.replace("&amp;", "&")
        assert address.startswith(shown.format(client_id))
        assert f'<html lang="{language}">' in console.page(address)


def test_the_question_about_a_moment_begins_with_the_present_one(console):
    """In UTC, so that the hour alone is left to enter; an asked moment stays."""
    assert f'value="{console.site.clock():%Y-%m-%dT%H:}' in console.page("/audit")
    asked = console.page("/audit?who=mapper/link&moment=2026-01-01T14:05")
    assert 'value="2026-01-01T14:05"' in asked


def test_a_leaked_client_is_stopped(console, client_id):
    """Disable with its tokens, revoke all, end the secret: each from the page of the client."""
    text = console.page(f"/clients/client?id={client_id}")
    assert f'href="/act/client-revoke?id={client_id}"' in text
    secret = _client(console, client_id)["secrets"][0]["id"]
    revoked = console.confirm(f"/act/client-revoke?id={client_id}", reason="leaked")
    assert revoked.status_code == 303
    ended = console.confirm(f"/act/secret-end?id={client_id}&secret={secret}")
    assert ended.status_code == 303
    assert not _client(console, client_id)["secrets"][0]["works"]
    disabled = console.confirm(f"/act/client-disable?id={client_id}&revoke_tokens=yes")
    assert disabled.status_code == 303
    assert console.confirm(f"/act/client-enable?id={client_id}").status_code == 303
    assert _client(console, client_id)["state"] == "enabled"


def test_a_key_is_rotated_after_its_plan(console):
    """The plan names the steps; the result says that they are done."""
    ring = console.site.get("/rings").json["items"][0]["name"]
    page = console.page(f"/act/ring-rotate?ring={ring}")
    assert "Steps" in page
    assert "Version 2 signs from" in page
    assert "Until then the present key signs." in page
    keys = len(console.site.get(f"/rings/{ring}/keys").json["items"])
    done = console.send_form(page, reason="yearly")
    assert done.status_code == 200
    assert "The order is carried out." in done.text
    assert "Version 2 signs from" in done.text
    assert "Nothing else is left to do here." in done.text
    assert len(console.site.get(f"/rings/{ring}/keys").json["items"]) == keys + 1
    assert console.confirm(f"/act/ring-freeze?ring={ring}", reason="audit").status_code == 200
    assert console.confirm(f"/act/ring-unfreeze?ring={ring}", reason="over").status_code == 200


def test_the_bound_of_a_revocation_is_in_plain_words(console):
    """Before the key is revoked: what introspection and offline verifiers will do."""
    ring = console.site.get("/rings").json["items"][0]["name"]
    keys = console.site.get(f"/rings/{ring}/keys").json["items"]
    kid = next(key["kid"] for key in keys if key["signs"])
    page = console.page(f"/act/key-revoke?ring={ring}&kid={kid}")
    assert "Introspection refuses these tokens on every node within" in page
    assert "Verifiers that never ask still accept these tokens" in page


def test_an_old_log_in_is_asked_again(console):
    """A sensitive act leads to the log-in and back to its plan."""
    ring = console.site.get("/rings").json["items"][0]["name"]
    console.find_session, kept = (lambda _: console.caller), console.find_session
    try:
        console.site.clock.advance(600)
        answer = console.get(f"/act/ring-rotate?ring={ring}")
    finally:
        console.find_session = kept
    assert answer.status_code == 303
    assert answer.headers["Location"] == (
        f"/login?step_up=1&next=%2Fact%2Fring-rotate%3Fring%3D{ring}"
    )


def test_the_other_acts(console, client_id):
    """A programme, the owner of a scope, a further secret, one token."""
    defined = console.confirm("/act/programme-define?name=Relief&scopes=mapper/*&clients=treasury")
    assert defined.status_code == 303
    assert "/act/programme-delete?name=Relief" in console.page("/apis")
    assert console.confirm("/act/programme-delete?name=Relief").status_code == 303
    assert "Relief" not in console.page("/apis")
    scopes = console.site.get("/scopes?limit=500").json["items"]
    unowned = next(each["name"] for each in scopes if each["resource_server"] is None)
    assigned = console.confirm(f"/act/scope-assign?scope={unowned}&resource_server=mapper")
    assert assigned.status_code == 303
    added = console.confirm(f"/act/secret-add?id={client_id}&description=second")
    assert added.status_code == 200
    revoked = console.confirm("/act/token-revoke?jti=0123456789abcdef", reason="found in a log")
    assert revoked.status_code in {303, 404}, revoked.text
    assert console.post("/act/nothing", {"csrf_token": CSRF}).status_code == 404


def test_what_is_stopped_is_offered_to_be_lifted(console):
    """Neither to be stopped again nor, a programme, to be deleted, which would be refused."""
    site = console.site
    places = (
        ("programme", "Payments", "/apis"),
        ("resource-server", "mapper", "/apis"),
        ("resource-server", "mapper", "/apis/api?id=mapper"),
        ("scope", "mapper/link", "/apis/api?id=mapper"),
        ("client", "treasury", "/clients/client?id=treasury"),
    )
    delete = "/act/programme-delete?name=Payments"
    for kind, subject, page in places:
        address = f"kind={kind}&amp;subject={quote(subject, safe='')}"
        stop, lift = f'"/act/stop-set?{address}"', f'"/act/stop-lift?{address}"'
        text = console.page(page)
        assert (stop in text, lift in text) == (True, False), (kind, page)
        body = {"kind": kind, "subject": subject, "reason": "INC-1"}
        assert site.send("POST", "/stops", json=body).status_code == 201
        text = console.page(page)
        assert (stop in text, lift in text) == (False, True), (kind, page)
        assert (delete in text) == ((kind, page) == ("resource-server", "/apis"))
        item = f"/stops/{kind}/{quote(subject, safe='')}"
        lifted = site.change("POST", f"{item}/lift", {"reason": "over"}, item=item)
        assert lifted.status_code == 200, lifted.text


@pytest.mark.parametrize(
    ("permissions", "acts"),
    [((), []), (("scopes:write",), ["delete"]), (("tokens:revoke",), ["set"])],
    ids=str,
)
def test_a_programme_shows_the_acts_that_one_may_do(console, permissions, acts):
    """Or a dash, as every other table."""
    reading = ("scopes:read", "resource-servers:read")
    with console.acting_as(console.operator(*reading, *permissions)):
        text = console.page("/apis")
    (row,) = re.findall(r"<tr role=\"row\">(?:(?!</tr>).)*Payments.*?</tr>", text, re.DOTALL)
    assert re.findall(r'"/act/(?:stop|programme)-(\w+)\?', row) == acts
    assert (re.search(r"\u2013</span></td>\s*</tr>$", row) is None) == bool(acts)
