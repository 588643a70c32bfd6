"""The pages and the plans for rings in every state: no list of a ring is certain to have items."""

import pytest
from sqlalchemy import delete, update

from authz_server.admin.console.acts import ACTS
from authz_server.admin.console.rendering import link
from authz_server.key_rings.models import NO_HASH, KeyEvent, KeyRing, SigningKeyRow
from keys.backends.local.backend import LocalBackend
from keys.errors import BackendUnavailable
from support.admin_site import AdminSite, running_admin_site
from support.console_site import ConsoleSite

RINGS = ("plain", "frozen", "bare", "frozen-bare", "revoked", "moved", "tainted", "empty")
PLAN = 'id="plan"'
ORDERS = [act for act in ACTS.values() if act.names[:1] == ("ring",)]


def _keys(site: AdminSite, ring: str) -> list[dict]:
    return site.get(f"/rings/{ring}/keys").json["items"]


def _order(site: AdminSite, item: str, verb: str, **values: object) -> None:
    body = {"reason": "a test", **values}
    answer = site.change("POST", f"{item}/{verb}", body, item=item)
    assert answer.status_code == 200, answer.text


def _key(site: AdminSite, ring: str, *, signs: bool) -> str:
    kid = next(key["kid"] for key in _keys(site, ring) if key["signs"] == signs)
    return f"/rings/{ring}/keys/{kid}"


def _bring_into_states(site: AdminSite) -> None:
    for ring in ("bare", "frozen-bare"):
        _order(site, _key(site, ring, signs=False), "revoke")
    for ring in ("frozen", "frozen-bare"):
        _order(site, f"/rings/{ring}", "freeze")
    _order(site, _key(site, "revoked", signs=True), "revoke", all_versions=True)
    _order(site, _key(site, "tainted", signs=True), "taint")
    _order(site, "/rings/moved", "move", successor="plain")
    # As an interrupted creation leaves it: the backend has versions that no ring knows.
    with site.services.database.transaction() as session:
        for table in (KeyEvent, SigningKeyRow):
            session.execute(delete(table).where(table.ring == "empty"))
        session.execute(update(KeyRing).where(KeyRing.name == "empty").values(event_hash=NO_HASH))


@pytest.fixture(scope="module")
def ringed(module_database_url: str, tmp_path_factory):
    """A console with a ring in each state, whose name is that of the ring."""
    overrides = {"keys": {"rings": {name: {"algorithm": "ES256"} for name in RINGS}}}
    directory = tmp_path_factory.mktemp("states")
    with running_admin_site(directory, module_database_url, overrides) as site:
        _bring_into_states(site)
        yield ConsoleSite(site)


@pytest.fixture(params=["answers", "fails"])
def backend(request, monkeypatch) -> str:
    """Whether the backend of the rings answers."""

    def fail(*_: object, **__: object) -> None:
        raise BackendUnavailable("the backend is not there", 1)

    if request.param == "fails":
        for name in ("create", "describe_versions", "destroy", "health"):
            monkeypatch.setattr(LocalBackend, name, fail)
    return request.param


def _plans(ringed: ConsoleSite, act_name: str, ring: str):
    """Yield the plan of an act, for each key of the ring if it is of keys."""
    act = ACTS[act_name]
    further = {"successor": "plain"} if act_name == "ring-move" else {}
    kids = [key["kid"] for key in _keys(ringed.site, ring)] if "kid" in act.names else [None]
    for kid in kids:
        yield ringed.get(link(f"/act/{act_name}", ring=ring, kid=kid, **further))


@pytest.mark.parametrize("page", ["/", "/keys"])
@pytest.mark.usefixtures("backend")
def test_a_page_shows_rings_in_every_state(ringed, page):
    """One without a planned change, a next key or any key."""
    text = ringed.page(page)
    assert all(f"ring-{ring}" in text for ring in RINGS)
    if page == "/":
        assert "nothing is planned" in text


@pytest.mark.parametrize("act", ORDERS, ids=lambda act: act.name)
def test_a_plan_is_shown_or_refused_for_a_ring_in_every_state(ringed, act, backend, caplog):
    """By the words of the API; a page that cannot be made is a fault."""
    for answer in [each for ring in RINGS for each in _plans(ringed, act.name, ring)]:
        shown = PLAN in answer.text
        assert shown == (answer.status_code == 200), answer.text
        if backend == "answers":
            assert shown or answer.status_code == 409, answer.text
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


@pytest.mark.parametrize("ring", ["bare", "revoked", "tainted"])
def test_a_rotation_without_a_standby_is_planned(ringed, ring):
    """The plan lists its steps: no next key signs from a known time on."""
    (plan,) = _plans(ringed, "ring-rotate", ring)
    assert "Steps" in plan.text or "backend" in plan.text
    done = ringed.send_form(plan.text, reason="the standby is gone")
    assert done.status_code == 200, done.text
    assert "The order is carried out." in done.text
