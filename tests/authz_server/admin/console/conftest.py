from typing import NamedTuple
from urllib.parse import quote

import pytest

from support.admin_site import running_admin_site
from support.console_site import ConsoleSite
from support.operators import add_passkey

#: Texts that a client or an operator can enter, with everything that a page must not obey.
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}} برنامج الدعم"


class Hostile(NamedTuple):
    """A client whose fields are hostile, and the pages that show them."""

    client_id: str
    pages: tuple[str, ...]


@pytest.fixture(scope="module")
def console(module_database_url: str, tmp_path_factory):
    """A console with clients, an API, a stop, a programme and tokens, once for each dialect."""
    with running_admin_site(tmp_path_factory.mktemp("console"), module_database_url) as site:
        made = site.send(
            "POST",
            "/resource-servers",
            json={
                "id": "mapper",
                "name": "Mapper",
                "identifier": "https://mapper.example",
                "scopes": ["mapper/*"],
            },
        )
        assert made.status_code == 201, made.text
        client = site.new_client(
            "Treasury",
            id="treasury",
            organisation="Ministry",
            allowed_scopes=["mapper/link", "disburse"],
            authentication_method="client_secret_post",
        )
        site.secrets["treasury"] = client["secret"]["value"]
        site.public.extensions["authz_server"].feed.poll()
        site.new_token("mapper/link", client="treasury", resource="https://mapper.example")
        assert site.ask_token("search", client="treasury").status_code == 400
        body = {"name": "Payments", "scopes": ["disburse"], "clients": ["treasury"]}
        assert site.send("POST", "/programmes", json=body).status_code == 200
        roles = [{"role": "api-owner", "resource_servers": ["mapper"]}]
        body = {"name": "grace", "roles": roles}
        assert site.send("POST", "/operators", json=body).status_code == 201
        add_passkey(site.services, "grace", "Telephone")
        yield ConsoleSite(site)


@pytest.fixture(scope="module")
def hostile(console) -> Hostile:
    """A client, an API, a secret, a scope, a stop and a programme with hostile texts."""
    site = console.site
    client = site.new_client(
        HOSTILE,
        id="hostile",
        organisation=HOSTILE,
        allowed_scopes=["mapper/link"],
        authentication_method="client_secret_post",
    )
    made = [
        site.send("POST", f"/clients/{client['id']}/secrets", json={"description": HOSTILE}),
        site.send(
            "POST",
            "/resource-servers",
            json={"id": "hostile-api", "name": HOSTILE, "identifier": "https://hostile.example"},
        ),
        site.send(
            "POST",
            "/scopes",
            json={
                "name": "hostile",
                "description": HOSTILE,
                "resource_server": "hostile-api",
            },
        ),
        site.send("POST", "/programmes", json={"name": HOSTILE[:60], "clients": ["hostile"]}),
        site.send(
            "POST", "/stops", json={"kind": "client", "subject": "hostile", "reason": HOSTILE}
        ),
    ]
    for answer in made:
        assert answer.status_code in {200, 201}, answer.text
    return Hostile(
        client["id"],
        (
            "/clients?q=hostile",
            f"/clients?q={quote(HOSTILE)}",
            "/clients/client?id=hostile",
            "/apis",
            "/apis/api?id=hostile-api",
            "/tokens",
            "/audit?subject=client:hostile",
            "/act/client-edit?id=hostile",
            f"/act/client-edit?id=hostile&name={quote(HOSTILE)}x&allowed_scopes=mapper/link",
            f"/act/stop-set?kind=client&subject={quote(HOSTILE)}",
            "/act/secret-rotate?id=hostile",
            f"/act/programme-delete?name={quote(HOSTILE[:60])}",
        ),
    )
