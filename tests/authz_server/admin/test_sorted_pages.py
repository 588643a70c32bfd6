"""Pages of clients in each order, whose keys are the same or missing for several."""

from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import get_args

import pytest
from sqlalchemy import delete, update

from authz_server.admin.pages import Cursors
from authz_server.admin.resources import clients as clients_resource
from authz_server.cli.remote.api import AdminApi
from authz_server.cli.remote.table import find_remote
from authz_server.clients.models import Client, ClientSecret
from authz_server.operations import client_orders, client_search
from authz_server.operations.client_orders import ClientSort
from authz_server.operations.client_search import ClientFilters, find_clients
from authz_server.operations.limited_services import limit_services
from authz_server.operations.permissions import Limits
from authz_server.scopes.uses import ScopeUse
from support.administrators import BY_SERVER

ROLES = ("api-owner", "client-manager")
NAMES = ("Beta", "beta", "ALPHA", "Émile", "alpha", "gamma", "BETA", "'; --")

FILTERS = ({}, {"q": "paged-"}, {"q": "mine/read"}, {"state": "enabled"})


@contextmanager
def clients(site, prefix):
    """Make clients of one API, in pairs of the same organisation and time."""
    now = site.clock()
    for number, name in enumerate(NAMES):
        site.new_client(id=f"{prefix}-{number}", name=name, allowed_scopes=["mine/read"])
    with site.services.database.transaction() as session:
        for number in range(len(NAMES)):
            client_id = f"{prefix}-{number}"
            at = now - timedelta(days=number // 3, microseconds=7)
            fields = {"created_at": at, "organisation": f"Own {number % 2}"}
            session.execute(update(Client).where(Client.id == client_id).values(**fields))
            secrets = update(ClientSecret).where(ClientSecret.client_id == client_id)
            session.execute(secrets.values(last_used_at=None if number % 3 == 0 else at))
    yield
    _delete(site, [f"{prefix}-{number}" for number in range(len(NAMES))])


@pytest.fixture(scope="module")
def paged(ours):
    """A site with clients that stay."""
    with clients(ours.site, "paged"):
        yield ours


@pytest.fixture
def leaving(ours):
    """The site with clients that the test may remove."""
    with clients(ours.site, "leaving"):
        yield ours


def _delete(site, ids):
    with site.services.database.transaction() as session:
        for client_id in ids:
            if (client := session.get(Client, client_id)) is not None:
                session.delete(client)


def read_pages(ours, caller, remove=None, **query):
    """Return the ids of the pages of a list, in turn."""
    cursor, pages = {}, []
    while True:
        got = ours.perform(caller, "GET", "/clients", query={"limit": "2", **query, **cursor})
        assert got.status == 200, got.body
        pages.append([each["id"] for each in got.body["items"]])
        if got.body["next"] is None:
            return pages
        cursor = {"cursor": got.body["next"]}
        if remove is not None:
            remove(pages[-1])


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", get_args(ClientSort))
def test_pages_are_the_list_in_each_order(paged, sort, descending):
    """Every client is on one page, also where a page ends amid clients with the same key."""
    query = {"sort": sort, "descending": str(descending).lower()}
    for limits in ({}, {"limits": BY_SERVER}):
        caller = paged.caller(*ROLES, **limits)
        get = partial(paged.perform, caller, "GET", "/clients")
        for filters in FILTERS:
            asked = {**query, **filters}
            whole = get(query={**asked, "limit": "500", "total": "true"}).body
            ids = [each["id"] for each in whole["items"]]
            assert len(ids) >= len(NAMES) or (limits and filters == {"q": "mine/read"})
            assert whole["total"] == len(ids) == len(set(ids))
            # The number of the whole list is counted when it has further pages.
            assert get(query={**asked, "limit": "2", "total": "exact"}).body["total"] == len(ids)
            pages = read_pages(paged, caller, **asked)
            assert _without_caller(each for page in pages for each in page) == _without_caller(ids)
            if filters == {"q": "paged-"}:
                found = find_clients(
                    paged.site.services,
                    ClientFilters(text="paged-"),
                    sort=sort,
                    descending=descending,
                ).clients
                assert [each.id for each in found] == ids
                _require_order(found, sort, descending=descending)


@pytest.mark.parametrize("uses", [0, 1, 10])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_by_last_use_are_the_list_however_few_uses_are_read(
    paged, monkeypatch, uses, descending
):
    """Where the latest uses fill no page, as those of clients of others, all are read."""
    monkeypatch.setattr(client_orders, "_USES_PER_CLIENT", uses)
    with paged.site.services.database.transaction() as session:
        for number, client_id in enumerate(("paged-3", "paged-4", "paged-5", "alien-client")):
            at = paged.site.clock() - timedelta(minutes=number // 2)
            scope = "mine/read" if number != 1 else "alien/read"
            fields = {"client_id": client_id, "scope": scope, "kind": "asked"}
            session.merge(ScopeUse(**fields, first_at=at, last_at=at))
    query = {"sort": "last-used", "descending": str(descending).lower()}
    for limits in ({}, {"limits": BY_SERVER}):
        caller = paged.caller(*ROLES, **limits)
        services = limit_services(paged.site.services, **(limits or {"limits": Limits()}))
        found = find_clients(
            services, ClientFilters(), sort="last-used", descending=descending
        ).clients
        ids = _without_caller(each.id for each in found)
        assert len(ids) >= len(NAMES)
        for limit in ("2", "3", "500"):
            pages = read_pages(paged, caller, **query, limit=limit)
            assert _without_caller(each for page in pages for each in page) == ids
    with paged.site.services.database.transaction() as session:
        session.execute(delete(ScopeUse))


def _without_caller(ids):
    """Return the other clients: a background job may store a use of that one at any time."""
    return [each for each in ids if each != "caller"]


def _require_order(found, sort, *, descending):
    """Require an order of clients; SQLite and PostgreSQL differ in the order of letters."""
    if sort in {"id", "name"}:
        keys = [(each.id if sort == "id" else "", each.id) for each in found]
        if sort == "name":
            return
    elif sort == "organisation":
        keys = [(each.organisation.lower(), each.id) for each in found]
    elif sort == "created":
        keys = [(each.created_at.isoformat(), each.id) for each in found]
    else:
        used = [each.last_used_at for each in found]
        keys = [
            (at.isoformat() if at else "", each.id) for at, each in zip(used, found, strict=True)
        ]
    for before, after in pairwise(keys):
        assert before > after if descending else before < after


@pytest.mark.parametrize("sort", ["name", "organisation", "created", "last-used"])
def test_a_client_that_goes_moves_no_other_between_pages(leaving, sort):
    """A page begins after the last client of the page before, and not after a number of them."""
    caller = leaving.caller(*ROLES)
    query = {"q": "leaving-", "sort": sort}
    before = read_pages(leaving, caller, **query)
    assert read_pages(leaving, caller, partial(_delete, leaving.site), **query) == before


def test_a_cursor_of_an_earlier_release_is_refused(paged, monkeypatch):
    """It was the number of clients before the page."""
    make = Cursors.make
    monkeypatch.setattr(
        Cursors, "make", lambda self, path, query, _after: make(self, path, query, 2)
    )
    caller, query = paged.caller(*ROLES), {"sort": "name", "limit": "2"}
    cursor = paged.perform(caller, "GET", "/clients", query=query).body["next"]
    got = paged.perform(caller, "GET", "/clients", query={**query, "cursor": cursor})
    assert (got.status, got.body["type"].rpartition(":")[2]) == (400, "invalid-cursor")


class _InProcess(AdminApi):
    """The requests of commands with ``--server``, answered in this process."""

    def __init__(self, perform):
        self._perform = perform

    def answer(self, _method, _permission, path, *, query=None, **_):
        texts = {name: str(each).lower() for name, each in query.items() if each not in {None, ""}}
        got = self._perform("GET", "/" + "/".join(path), query=texts)
        assert got.status == 200, got.body
        return got.body


@pytest.mark.parametrize("sort", get_args(ClientSort))
def test_a_page_has_the_same_total_with_and_without_a_server(paged, monkeypatch, sort):
    """Also beyond the number of clients that is counted."""
    monkeypatch.setattr(clients_resource, "COUNTED", 3)
    monkeypatch.setattr(client_search, "COUNTED", 3)
    # Few are found by their ids, and their number is known.
    monkeypatch.setattr(client_search, "FEW", 1)
    api = _InProcess(partial(paged.perform, paged.caller(*ROLES)))
    filters = ClientFilters(text="paged-")
    totals = set()
    for limit in (None, 0, *range(1, len(NAMES) + 2)):
        for page in range(1 if not limit else len(NAMES) // limit + 3):
            asked = {"sort": sort, "offset": page * (limit or 0), "limit": limit}
            here = find_clients(paged.site.services, filters, **asked)
            there = find_remote(find_clients)(api, filters, **asked)
            assert (there.total, there.is_exact) == (here.total, here.is_exact), asked
            assert [each.id for each in there.clients] == [each.id for each in here.clients]
            totals.add((here.total, here.is_exact))
    assert {(3, False), (len(NAMES) - 1, False), (len(NAMES), True)} <= totals
