"""The numbers of the console, and the lists that it shows in parts."""

import re
from datetime import timedelta
from secrets import token_hex

import pytest
from sqlalchemy import update

from authz_server.admin.console.diffs import differences
from authz_server.admin.console.rendering import environment
from authz_server.audit.records import difference
from authz_server.clients.models import ClientSecret

_DUE = re.compile(r"Secrets of APIs that end within 30 days <strong>(\d+)</strong>")
_OF_STREAM = {"unread": 1, "failures": 2, "last_error": "x", "retry_at": "2026-01-01T00:00:00Z"}


def _due(console) -> int:
    found = _DUE.search(console.page("/"))
    assert found is not None
    return int(found[1])


def test_the_secrets_that_end_soon_are_counted(console):
    """Those of another pepper alike: not one that ends later, or does not end."""
    before = _due(console)
    body = {"id": f"api-{token_hex(4)}", "name": "X", "identifier": f"urn:test:{token_hex(8)}"}
    made = console.site.send("POST", "/resource-servers", json=body)
    assert made.status_code == 201, made.text
    for days, pepper, counted in (
        (None, "0123456789abcdef", 0),
        (40, "0123456789abcdef", 0),
        (20, "0123456789abcdef", 1),
        (20, None, 1),
        (40, None, 0),
    ):
        ends_at = None if days is None else console.site.clock() + timedelta(days=days)
        with console.site.services.database.transaction() as session:
            session.execute(
                update(ClientSecret)
                .where(ClientSecret.client_id == body["id"])
                .values(expires_at=ends_at, pepper_fingerprint=pepper)
            )
        assert _due(console) == before + counted, (days, pepper)


def test_callbacks_without_a_partner_are_shown_in_parts(console):
    """Each part leads to the next one."""
    partner, caller = f"partner-{token_hex(3)}/call", f"caller-{token_hex(3)}/call"
    for body in ({"name": partner}, {"name": caller, "callback_partner": partner}):
        made = console.site.send("POST", "/scopes", json={**body, "resource_server": "mapper"})
        assert made.status_code == 201, made.text
    clients = {console.site.new_client("Caller", allowed_scopes=[caller])["id"] for _ in range(14)}
    first = console.page("/apis")
    (following,) = re.findall(r'href="(/apis\?callbacks=\d+)#callbacks"', first)
    second = console.page(following)
    assert "#callbacks" not in second
    shown = re.findall(r"/clients/client\?id=([\w-]+)", first + second)
    assert sorted(each for each in shown if each in clients) == sorted(clients)


@pytest.mark.parametrize(("part", "further"), [("", " … +28"), ("a-cursor", "")])
def test_the_number_of_all_stands_on_the_first_part(part, further):
    """A later part does not know how many came before it."""
    source, _, _ = environment().loader.get_source(environment(), "audit.html")
    (call,) = re.findall(r"{{ names\(answer\.unknown.*?}}", source)
    shown = environment().from_string(f'{{% from "macros.html" import names %}}{call}')
    answer = {"unknown": ["a", "b"], "unknown_count": 30}
    text = shown.render(answer=answer, arguments={"part": part}).strip()
    assert text == f"<code><bdi>a</bdi></code>, <code><bdi>b</bdi></code>{further}"


def test_what_varies_by_itself_is_no_change_of_a_stream():
    """Neither in a plan, nor in what another editor changed."""
    before = {"delivery": "push", **dict.fromkeys(_OF_STREAM)}
    after = {"delivery": "poll", **_OF_STREAM}
    assert difference(before, after) == {"delivery": {"before": "push", "after": "poll"}}
    assert [each["name"] for each in differences(before, after)] == ["delivery"]
