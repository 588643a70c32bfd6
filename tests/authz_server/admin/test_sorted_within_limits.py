"""The order and the number of clients, for a caller with limits."""

from datetime import timedelta

from sqlalchemy import update

from authz_server.clients.models import Client, ClientSecret
from authz_server.scopes.uses import ScopeUse
from support.administrators import BY_SERVER, MARK

ROLES = ("api-owner", "client-manager")


def test_neither_order_nor_number_shows_the_use_of_others(ours):
    """A client with scopes of others is sorted as one that is not used, since its use is hidden."""
    site = ours.site
    now = site.clock()
    for client, scopes in (("sorted-a", ["mine/read"]), ("sorted-b", [f"{MARK}/read"])):
        site.new_client(id=client, allowed_scopes=["mine/read", *scopes])
    with site.services.database.transaction() as session:
        mine = Client.id.in_(("sorted-a", "sorted-b"))
        session.execute(update(Client).where(mine).values(organisation="Own"))
        used = {"sorted-a": now - timedelta(days=9), "sorted-b": now}
        for client, at in used.items():
            secrets = update(ClientSecret).where(ClientSecret.client_id == client)
            session.execute(secrets.values(last_used_at=at))
            scope = "mine/read" if client == "sorted-a" else f"{MARK}/read"
            session.add(
                ScopeUse(client_id=client, scope=scope, kind="asked", first_at=at, last_at=at)
            )

    def listed(by) -> tuple[list[str], int]:
        query = {"q": "sorted-", "sort": "last-used", "total": "true"}
        found = ours.perform(by, "GET", "/clients", query=query).body
        return [each["id"] for each in found["items"]], found["total"]

    assert listed(ours.caller(*ROLES)) == (["sorted-a", "sorted-b"], 2)
    assert listed(ours.caller(*ROLES, limits=BY_SERVER)) == (["sorted-b", "sorted-a"], 2)
    query = {"q": "", "total": "true", "sort": "name"}
    seen = ours.perform(ours.caller(*ROLES, limits=BY_SERVER), "GET", "/clients", query=query).body
    assert seen["total"] == len(seen["items"])
    assert MARK not in {each["organisation"] for each in seen["items"]}
