"""The desk of an API: its secrets, its facts and its scopes, by those who may change it."""

import re
from dataclasses import replace
from datetime import timedelta
from secrets import token_hex
from urllib.parse import quote

import pytest

from authz_server.operations.permissions import ROLES, Grant, Limits
from support.console_site import read_form

_OWNER = tuple(ROLES["api-owner"].permissions)
_VALUE = re.compile(r'id="value"[^>]*value="([^"]+)"')


def _new_api(console, **fields) -> dict:
    """Return a new API with a secret."""
    number = token_hex(4)
    body = {"id": f"api-{number}", "name": "Land", "identifier": f"https://{number}.example"}
    made = console.site.send("POST", "/resource-servers", json={**body, **fields})
    assert made.status_code == 201, made.text
    return made.json


@pytest.fixture
def api(console) -> dict:
    """A new API."""
    return _new_api(console)


def _api(console, api: dict) -> dict:
    return console.site.get(f"/resource-servers/{api['id']}").json


def _owner(console, *ids: str, **options):
    """Return an operator with the role api-owner for some APIs."""
    return console.operator(*_OWNER, limits=Limits(resource_servers=frozenset(ids)), **options)


def test_the_owner_of_an_api_rotates_its_secret(console, api):
    """Made, rotated and ended at the owner's desk; each value is shown once and kept nowhere."""
    address = f"/apis/api?id={api['id']}"
    with console.acting_as(_owner(console, api["id"])):
        page = console.page(address)
        for act in ("rotate", "add"):
            assert f'href="/act/api-secret-{act}?id={api["id"]}"' in page
        (first,) = [each["id"] for each in _api(console, api)["secrets"]]
        assert f"secret={first}" in page
        page = console.page(f"/act/api-secret-rotate?id={api['id']}&unused_days=7")
        assert "The secrets that work now, and their ends:" in page
        assert len(_api(console, api)["secrets"]) == 1
        answer = console.send_form(page)
        value = _VALUE.search(answer.text)
        assert value is not None
        assert address in answer.text
        # A form that is sent again shows none, and adds none.
        again = console.send_form(page)
        assert "This form was sent before." in again.text
        assert value[1] not in again.text + console.page(address)
        assert _VALUE.search(console.confirm(f"/act/api-secret-add?id={api['id']}").text)
        assert len(_api(console, api)["secrets"]) == 3
        ended = console.confirm(f"/act/api-secret-end?id={api['id']}&secret={first}")
        assert ended.headers["Location"] == f"{address}&done=secret-end"
        assert 'role="status"' in console.page(ended.headers["Location"])
    works = {each["id"]: each["works"] for each in _api(console, api)["secrets"]}
    assert works.pop(first) is False
    assert list(works.values()) == [True, True]
    assert value[1] not in console.site.audit_path.read_text()


def test_the_owner_of_an_api_does_nothing_at_others(console, api):
    """Neither on the page nor by its address; nor with the secrets of clients."""
    before = _api(console, api)["secrets"]
    console.site.new_client(id="of-mapper", authentication_method="client_secret_post")
    with console.acting_as(_owner(console, "mapper")):
        assert console.get(f"/apis/api?id={api['id']}").status_code == 404
        for act in ("api-secret-rotate", "api-secret-add"):
            assert console.get(f"/act/{act}?id={api['id']}").status_code == 404
        # A client that has scopes of this API alone lies within the limits.
        page = console.page("/clients/client?id=of-mapper")
        assert "/act/secret-" not in page
        assert console.get("/act/secret-rotate?id=of-mapper").status_code == 404
    assert _api(console, api)["secrets"] == before


@pytest.mark.parametrize(
    ("permissions", "acts"),
    [
        ((), []),
        (("scopes:write",), []),
        (("secrets:write",), ["rotate", "add", "end"]),
        (("resource-servers:write",), ["rotate", "add", "end"]),
    ],
    ids=str,
)
def test_the_acts_on_secrets_are_shown_to_those_who_may_do_them(console, api, permissions, acts):
    """A service desk for all secrets, and those who change the API."""
    with console.acting_as(console.operator("scopes:read", "resource-servers:read", *permissions)):
        text = console.page(f"/apis/api?id={api['id']}")
        assert re.findall(r'"/act/api-secret-(\w+)\?', text) == acts
        for act in ("rotate", "add"):
            status = console.get(f"/act/api-secret-{act}?id={api['id']}").status_code
            assert (status == 200) == bool(acts)


def test_an_api_that_serves_all_is_changed_by_no_organisation(console, api):
    """Its secrets are not shown, and no act is offered; of its own API everything is."""
    own = _new_api(console, organisation="Ministry")
    limits = Limits(organisations=frozenset({"Ministry"}))
    with console.acting_as(console.operator(*_OWNER, limits=limits)):
        shared = console.page(f"/apis/api?id={api['id']}")
        assert 'id="secrets"' not in shared
        assert "/act/api-" not in shared
        assert "/act/api-secret-rotate" in console.page(f"/apis/api?id={own['id']}")


def test_who_sees_every_api_is_offered_acts_on_the_own_one_alone(console, api):
    """As an auditor who also owns one API."""
    reads = Grant(permissions=ROLES["auditor"].permissions, role="auditor")
    owner = _owner(console, "mapper")
    with console.acting_as(replace(owner, grants=(*owner.grants, reads))):
        others = console.page(f"/apis/api?id={api['id']}")
        assert 'id="secrets"' in others
        assert "/act/" not in others
        assert "/act/api-secret-rotate?id=mapper" in console.page("/apis/api?id=mapper")


def test_the_limits_of_two_permissions_for_a_secret_are_joined(console, api):
    """An owner of one API who also is at the desk for all secrets reaches all of them."""
    owner = _owner(console, "mapper")
    desk = Grant(permissions=frozenset({"secrets:write", "resource-servers:read"}), role="desk")
    path = f"/act/api-secret-rotate?id={api['id']}"
    with console.acting_as(owner):
        assert console.get(path).status_code == 404
    with console.acting_as(replace(owner, grants=(*owner.grants, desk))):
        assert read_form(console.page(path))


@pytest.mark.parametrize("permission", ["secrets:write", "resource-servers:write"])
def test_a_secret_needs_a_recent_log_in(console, api, permission):
    """Whichever permission it is by: the page leads to the log-in, and back to the plan."""
    caller = console.operator("scopes:read", "resource-servers:read", permission)
    caller = replace(caller, authenticated_at=console.site.clock() - timedelta(minutes=10))
    console.find_session, kept = (lambda _: caller), console.find_session
    try:
        answer = console.get(f"/act/api-secret-rotate?id={api['id']}")
    finally:
        console.find_session = kept
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/login?step_up=1&next=%2Fact%2Fapi-secret-rotate")


def test_secrets_that_ended_do_not_fill_the_page(console, api):
    """Those that work come first; of the others some are shown, and how many there are."""
    for _ in range(21):
        secret = next(each["id"] for each in _api(console, api)["secrets"] if each["works"])
        added = console.site.send("POST", f"/resource-servers/{api['id']}/secrets", json={})
        assert added.status_code == 201
        item = f"/resource-servers/{api['id']}/secrets/{secret}"
        assert console.site.change("DELETE", item).status_code == 200
    (works,) = [each["id"] for each in _api(console, api)["secrets"] if each["works"]]
    page = console.page(f"/apis/api?id={api['id']}")
    table = page[page.index('id="secrets"') : page.index('id="scopes"')]
    assert table.count('<tr role="row">') == 11
    assert table.index(f"<code>{works}</code>") < table.index("is-state-disabled")
    assert ">+12</p>" in table


_API_FIELDS = "name=Land+Registry&organisation=Ministry&token_format=reference&token_type=JWT"


def test_an_api_is_changed_at_the_desk_of_its_owner(console, api):
    """The form shows what stands, the plan what would change; the identifier is not in it."""
    path = f"/act/api-edit?id={api['id']}"
    with console.acting_as(_owner(console, api["id"])):
        page = console.page(f"/apis/api?id={api['id']}")
        assert f'href="{path}"' in page
        assert not re.search(r"/act/api-(?:create|delete|identifier)", page)
        form = console.page(path)
        assert 'value="Land"' in form
        assert '<option value="jwt" selected>' in form
        planned = console.page(f"{path}&{_API_FIELDS}&identifier=https://other.example")
        assert "<ins><bdi>reference</bdi></ins>" in planned
        assert "https://other.example" not in planned
        assert _api(console, api)["token_format"] == "jwt"
        answer = console.send_form(planned)
        assert answer.headers["Location"] == f"/apis/api?id={api['id']}&done=api-edit"
        shown = console.page(answer.headers["Location"])
        assert "The API is changed." in shown
        assert "<bdi>Ministry</bdi>" in shown
    changed = _api(console, api)
    assert (changed["name"], changed["organisation"]) == ("Land Registry", "Ministry")
    assert (changed["token_format"], changed["token_type"]) == ("reference", "JWT")
    assert changed["identifier"] == api["identifier"]
    record = console.site.get(f"/audit?subject={api['id']}&limit=1").json["items"][0]
    assert record["detail"]["diff"]["organisation"] == {"before": "", "after": "Ministry"}


def test_the_second_editor_of_an_api_sees_what_changed_meanwhile(console, api):
    """412, also where the first one changed nothing but the organisation."""
    page = console.page(f"/act/api-edit?id={api['id']}&name=Mine")
    item = f"/resource-servers/{api['id']}"
    assert console.site.change("PATCH", item, {"organisation": "Treasury"}).status_code == 200
    answer = console.send_form(page)
    assert answer.status_code == 412
    assert "<ins><bdi>Treasury</bdi></ins>" in answer.text
    assert _api(console, api)["name"] == "Land"


def test_an_api_is_disabled_and_enabled(console, api):
    """Each offers the other one."""
    for act, state in (("disable", "disabled"), ("enable", "enabled")):
        assert f'"/act/api-{act}?id={api["id"]}"' in console.page(f"/apis/api?id={api['id']}")
        done = console.confirm(f"/act/api-{act}?id={api['id']}")
        assert done.headers["Location"].endswith(f"&done=api-{act}")
        assert _api(console, api)["state"] == state


def test_an_api_is_registered_with_its_scopes_and_a_secret(console):
    """A refused value is named, and the form keeps what was entered."""
    assert 'href="/act/api-create"' in console.page("/apis")
    path = f"/act/api-create?new_id=land&identifier={{}}&{_API_FIELDS}&scopes=land/read"
    refused = console.get(path.format("https://land.example"))
    assert refused.status_code == 404, refused.text
    assert 'value="Land Registry"' in refused.text
    path = path.replace("&scopes=land/read", "")
    refused = console.get(path.format("no+uri"))
    assert refused.status_code == 422
    answer = console.confirm(path.format("https://land.example"))
    assert answer.status_code == 200
    assert "The new secret" in answer.text
    assert "/apis/api?id=land" in answer.text
    land = console.site.get("/resource-servers/land").json
    assert (land["identifier"], land["organisation"]) == ("https://land.example", "Ministry")
    assert len(land["secrets"]) == 1
    assert _VALUE.search(answer.text)[1] not in console.page("/apis/api?id=land")


def test_an_api_is_registered_without_a_secret(console):
    """Without an id, one is generated, whose page follows."""
    fields = "identifier=https://keyed.example&name=Keyed&without_secret=yes"
    answer = console.confirm(f"/act/api-create?{fields}")
    assert "The API is registered." in answer.text
    assert not _VALUE.search(answer.text)
    (made,) = console.site.get("/resource-servers?q=keyed.example").json["items"]
    assert made["secrets"] == []
    assert f"/apis/api?id={made['id']}" in answer.text


def test_the_identifier_of_an_api_is_changed(console, api):
    """By an act of its own, as the tokens for the earlier one end."""
    path = f"/act/api-identifier?id={api['id']}"
    assert f'href="{path}"' in console.page(f"/apis/api?id={api['id']}")
    done = console.confirm(f"{path}&identifier=https://moved-{api['id']}.example")
    assert done.status_code == 303
    assert _api(console, api)["identifier"] == f"https://moved-{api['id']}.example"


def test_an_api_is_deleted(console, api):
    """Its page is gone; the list follows."""
    assert f'href="/act/api-delete?id={api["id"]}"' in console.page(f"/apis/api?id={api['id']}")
    done = console.confirm(f"/act/api-delete?id={api['id']}")
    assert done.headers["Location"] == "/apis?done=api-delete"
    assert "The API is deleted." in console.page("/apis?done=api-delete")
    assert console.get(f"/apis/api?id={api['id']}").status_code == 404


def test_the_admin_api_keeps_its_identifier(console):
    """Neither act is offered for it, and it is not deleted."""
    listed = console.site.get("/resource-servers?q=urn:authz-server:admin").json["items"]
    for each in listed:
        text = console.page(f"/apis/api?id={each['id']}")
        assert not re.search(r"/act/api-(?:delete|identifier)", text)
        assert console.get(f"/act/api-delete?id={each['id']}").status_code == 409
    assert listed


def test_what_concerns_the_whole_server_is_not_offered_within_limits(console, api):
    """An owner of one API registers and deletes none: the API refuses it."""
    with console.acting_as(_owner(console, api["id"])):
        assert "/act/api-create" not in console.page("/apis")
        paths = (
            "/act/api-create?name=x&identifier=https://x.example",
            f"/act/api-delete?id={api['id']}",
            f"/act/api-identifier?id={api['id']}&identifier=https://x.example",
        )
        for path in paths:
            assert console.get(path).status_code == 403, path
    assert _api(console, api)["identifier"] == api["identifier"]


def test_a_scope_is_added_at_the_desk_of_the_owner(console, api):
    """With its risk, cap and spellings; a number that is none is refused with the form."""
    name = f"{api['id']}/read"
    path = f"/act/scope-add?id={api['id']}&name={name}&risk=read&lifetime_cap_seconds="
    with console.acting_as(_owner(console, api["id"])):
        assert "/act/scope-add?id=" in console.page(f"/apis/api?id={api['id']}")
        for odd in ("x", "1e3", "-1", "9" * 5_000, "\u00b2"):
            refused = console.get(f"{path}{odd[:900]}")
            assert refused.status_code in {400, 422}, odd
            assert f'value="{name}"' in refused.text
        done = console.confirm(f"{path}300&description=Reads&aliases={api['id']}:read")
        assert done.headers["Location"] == f"/apis/api?id={api['id']}&done=scope-add"
        shown = console.page(f"/apis/api?id={api['id']}")
        assert f"<bdi>{name}</bdi>" in shown
    scope = console.site.get(f"/scopes/{quote(name, safe='')}").json
    assert scope["resource_server"] == api["id"]
    assert (scope["risk"], scope["lifetime_cap_seconds"]) == ("read", 300)
    assert scope["aliases"] == [f"{api['id']}:read"]


def test_a_scope_without_a_choice_has_the_risk_of_a_new_one(console, api):
    """As the admin API has it."""
    name = f"{api['id']}/plain"
    assert console.confirm(f"/act/scope-add?id={api['id']}&name={name}").status_code == 303
    assert console.site.get(f"/scopes/{quote(name, safe='')}").json["risk"] == "write"


def test_scopes_are_assigned_to_an_api(console, api):
    """Those of another one with its consent alone; the plan names what changes."""
    for name in ("one", "two"):
        body = {"name": f"{api['id']}/{name}"}
        assert console.site.send("POST", "/scopes", json=body).status_code == 201
    path = f"/act/scope-assign-several?id={api['id']}&scopes="
    page = console.page(f"{path}{api['id']}/*")
    assert "Scopes that this API then owns:" in page
    assert f"<bdi>{api['id']}/two</bdi>" in page
    assert console.send_form(page).status_code == 303
    assert _api(console, api)["scopes"] == [f"{api['id']}/one", f"{api['id']}/two"]
    assert "Nothing would change." in console.page(f"{path}{api['id']}/*")
    other = _new_api(console)
    path = f"/act/scope-assign-several?id={other['id']}&scopes={api['id']}/one"
    assert console.get(path).status_code == 409
    assert console.confirm(f"{path}&take_over=yes").status_code == 303
    assert _api(console, other)["scopes"] == [f"{api['id']}/one"]
    with console.acting_as(_owner(console, other["id"])):
        taken = f"/act/scope-assign-several?id={other['id']}&scopes={api['id']}/two&take_over=yes"
        assert console.get(taken).status_code in {404, 422}


def test_the_page_of_a_large_api_stays_small(console):
    """With a full matrix, many scopes and secrets: below 60 kB."""
    api = _new_api(console)
    names = [f"{api['id']}/register-of-parcels-{number}" for number in range(45)]
    for name in names:
        body = {"name": name, "resource_server": api["id"], "description": "Parcels of a district"}
        assert console.site.send("POST", "/scopes", json=body).status_code == 201
    for number in range(25):
        console.site.new_client(f"Office {number}", allowed_scopes=names)
    for _ in range(21):
        rotation = {"end_old_at": f"{console.site.clock().isoformat()}", "description": "Gateway"}
        rotated = f"/resource-servers/{api['id']}/secrets/rotate"
        assert console.site.send("POST", rotated, json=rotation).status_code == 201
    answer = console.get(f"/apis/api?id={api['id']}")
    assert answer.text.count("Office ") > 10
    assert len(answer.data) < 60_000


def test_the_page_of_many_apis_stops_and_programmes_stays_small(console):
    """Each table has a next part, in which a stop can be lifted."""
    api = _new_api(console)
    for number in range(30):
        scope = {"name": f"{api['id']}/many-{number:02}", "resource_server": api["id"]}
        programme = {"name": f"Many {number:02}", "scopes": [scope["name"]]}
        stop = {"kind": "scope", "subject": scope["name"], "reason": "payments"}
        for path, body in (("/scopes", scope), ("/programmes", programme), ("/stops", stop)):
            assert console.site.send("POST", path, json=body).status_code in {200, 201}
        _new_api(console)
    for name in ("stops", "programmes"):
        shown, address = set(), "/apis"
        while address:
            answer = console.get(address)
            assert len(answer.data) < 60_000
            part = answer.text.partition(f'<h2 id="{name}">')[2].partition("</section>")[0]
            assert name != "stops" or "/act/stop-lift" in part
            shown |= {n for n in range(30) if f"many-{n:02}" in part or f"Many {n:02}" in part}
            following = re.search(rf'href="(/apis\?{name}=\d+)#{name}"', answer.text)
            address = following and following[1]
        assert shown == set(range(30))
    for odd in ("-1", "x", "9" * 12, "٣"):
        assert console.get(f"/apis?stops={odd}").status_code == 200


def test_a_secret_of_an_api_that_ends_soon_is_a_duty(console, api):
    """Counted on the first screen, and marked in the list that it leads to."""
    with console.acting_as(_owner(console, api["id"])):
        assert "Secrets of APIs that end within 30 days <strong>0<" in console.page("/")
        assert "secret ends" not in console.page("/apis")
    soon = f"{console.site.clock() + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"
    added = console.site.send(
        "POST", f"/resource-servers/{api['id']}/secrets", json={"expires_at": soon}
    )
    assert added.status_code == 201, added.text
    with console.acting_as(_owner(console, api["id"])):
        assert "Secrets of APIs that end within 30 days <strong>1<" in console.page("/")
        assert "secret ends" in console.page("/apis")
