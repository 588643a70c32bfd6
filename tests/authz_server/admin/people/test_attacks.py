"""Attacks on every address of the console, with a real session: generated from its tables."""

import re

import pytest

from authz_server.admin.console.acts import ACTS
from authz_server.admin.console.application import PAGES
from authz_server.operations.permissions import ROLES
from authz_server.settings.admin import PERMISSIONS
from support.people_site import Visitor, running_people_site

#: Every address that takes a form.
FORMS = (
    *(path for path, (_, methods, _) in PAGES.items() if "POST" in methods),
    *(f"/act/{name}" for name in ACTS),
)
ADDRESSES = (*PAGES, *(f"/act/{name}" for name in ACTS))
FOREIGN = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://admin.example.evil.example"},
    {"Sec_Fetch_Site": "cross-site"},
    {"Origin": None, "Sec_Fetch_Site": None},
)
_ODD = {
    "markup": "<script>alert(1)</script>{{7*7}}${7*7}\"'",
    "control characters": "a\r\nSet-Cookie: stolen=1\x00b\u202egnp.exe",
    "long number": "9" * 1_000,
    "path": "../../../etc/passwd",
}
_FIELD = re.compile(r'value="[^"]*"|<textarea.*?</textarea>', re.DOTALL)
# The rules are those of the pages: the database decides none of them.
pytestmark = pytest.mark.parametrize("module_database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def people(module_database_url: str, tmp_path_factory):
    """A site with a role that permits everything, so that the permission refuses nothing."""
    everything = {"permissions": list(PERMISSIONS)}
    admin = {"roles": {"everything": everything}, "requests_per_minute": 1_000_000}
    directory = tmp_path_factory.mktemp("attacks")
    with running_people_site(directory, module_database_url, {"admin": admin}) as site:
        yield site


@pytest.fixture(scope="module")
def visitor(people):
    """The browser of an operator with every permission."""
    return people.enrolled("everything")


def _fields(path: str, value: str = "missing") -> dict[str, str]:
    act = ACTS.get(path.removeprefix("/act/"))
    return dict.fromkeys(act.names, value) if act else {"token": "x", "text": "x"}


def _changes(people) -> int:
    """Return the number of records of what operators have done in the console."""
    return people.audit_path.read_text().count(" via console")


def test_a_form_of_another_site_or_session_is_refused(people, visitor):
    """At every address: by its origin, and by a token of another browser, of nobody, or none."""
    other = people.enrolled("everything").token()
    own = visitor.token()
    before = _changes(people)
    for path in FORMS:
        for headers in FOREIGN:
            form = {**_fields(path), "csrf_token": own}
            assert visitor.post(path, form, **headers).status_code == 403, (path, headers)
        for token in ("", other, own[:-1], f"{own}A"):
            form = {**_fields(path), "csrf_token": token}
            assert visitor.post(path, form).status_code == 403, (path, token)
        assert visitor.post(path, _fields(path)).status_code == 403, path
    assert _changes(people) == before


def test_another_method_is_refused(visitor):
    """At every address, also of those that only read."""
    for path in ADDRESSES:
        permitted = PAGES[path][1] if path in PAGES else ("GET", "POST")
        for method in {"POST", "PUT", "PATCH", "DELETE", "PROPFIND"} - {*permitted}:
            assert visitor.send(method, path).status_code == 405, (method, path)


@pytest.mark.parametrize("name", _ODD)
def test_odd_values_are_refused_or_shown_as_text(visitor, name):
    """In every parameter and field of every address: no fault, no header and no script."""
    value, own = _ODD[name], visitor.token()
    for path in ADDRESSES:
        act = ACTS.get(path.removeprefix("/act/"))
        names = [*act.names, *(each.name for each in act.fields)] if act else []
        given = dict.fromkeys([*names, "id", "name", "cursor", "done", "lang", "reason"], value)
        answers = [visitor.get(path, query_string=given)]
        if path in FORMS:
            answers.append(visitor.post(path, {**given, "csrf_token": own}))
        for answer in answers:
            assert answer.status_code < 500, (path, answer.text)
            assert "stolen" not in str(answer.headers.getlist("Set-Cookie"))
            assert "<script>alert" not in answer.text, path
            # What was entered stays in its field, which has a direction of its own.
            assert "\u202e" not in _FIELD.sub("", answer.text), path
            place = answer.headers.get("Location", "/")
            assert re.fullmatch(r"/(?!/)[^\r\n]*", place), place
    assert visitor.caller() is not None


def test_a_repeated_parameter_counts_once(visitor):
    """The first one, in an address and in a form; the second never replaces the checked one."""
    for path in ADDRESSES:
        answer = visitor.get(
            f"{path}?id=first&id=other-one&name=a&name=other-one&cursor=x&cursor=y"
        )
        assert answer.status_code < 500, path
        assert "other-one" not in answer.text, path
    own = visitor.token()
    for tokens in (("", own), ("x", own)):
        body = "&".join(f"csrf_token={each}" for each in tokens)
        sent = {"Origin": "https://admin.example", "Sec-Fetch-Site": "same-origin"}
        sent["Content-Type"] = "application/x-www-form-urlencoded"
        answer = visitor.send("POST", "/act/client-delete", data=f"id=x&{body}", headers=sent)
        assert answer.status_code == 403


def test_large_forms_are_refused(visitor):
    """Of 2 MB, and of 10,000 fields, at every address that takes one."""
    own = visitor.token()
    large = {"csrf_token": own, "reason": "x" * 2_000_000}
    many = {"csrf_token": own, **{f"field{number}": "x" for number in range(10_000)}}
    for path in FORMS:
        for form in (large, many):
            answer = visitor.post(path, {**_fields(path), **form})
            assert 400 <= answer.status_code < 500, (path, answer.status_code)


@pytest.mark.parametrize("role", [*sorted(ROLES.keys() - {"api-owner"}), None], ids=str)
def test_each_role_opens_its_own_pages_alone(people, role):
    """Without a session every address leads to the log-in; a refusal names nothing of others."""
    browser = people.enrolled(role) if role else Visitor(people)
    for path in ADDRESSES:
        answer = browser.get(path)
        assert answer.status_code < 500, (path, answer.text)
        if role is None:
            assert answer.status_code == 303, path
            assert answer.headers["Location"].startswith("/login?next=%2F"), path
            assert answer.data == b""
            continue
        act = ACTS.get(path.removeprefix("/act/"))
        if act and ROLES[role].permissions.isdisjoint({*act.permissions, ""}):
            assert answer.status_code == 404, path
