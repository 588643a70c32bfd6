"""Lists whose database has another order of letters than that of code points."""

import pytest
from sqlalchemy import text


def test_a_list_in_the_order_of_a_dictionary_loses_nothing_between_its_pages(site):
    """There, a name in upper case stands between others, and not before them."""
    names = ["apple", "Banana", "cherry", "Zebra", "fig-1", "fig_2"]
    scope = {"name": "ordered/read"}
    assert site.send("POST", "/scopes", json=scope).status_code == 201
    for name in names:
        programme = {"name": name, "scopes": ["ordered/read"]}
        assert site.send("POST", "/programmes", json=programme).status_code == 200
    database = site.services.database
    if database.engine.dialect.name == "postgresql":
        with database.transaction() as session:
            known = "SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'"
            if session.scalar(text(known)):
                changed = 'ALTER COLUMN name TYPE varchar(200) COLLATE "und-x-icu"'
                session.execute(text(f"ALTER TABLE programme {changed}"))
    for limit in (1, 2, 4):
        found, cursor = [], ""
        while cursor is not None:
            page = site.get(f"/programmes?limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
            assert page.status_code == 200, page.text
            found += [each["name"] for each in page.json["items"]]
            cursor = page.json["next"]
        assert found == sorted(names)


@pytest.mark.parametrize("path", ["/scopes", "/resource-servers", "/event-streams"])
def test_the_pages_of_a_list_are_the_whole_list(site, path):
    """Each item is on one page, whatever their number."""
    for name in ("paged-a", "paged-b", "paged-c"):
        server = {"id": name, "name": name, "identifier": f"urn:t:{name}"}
        if site.send("POST", "/resource-servers", json=server).status_code == 201:
            stream = {"resource_server": name, "delivery": "poll"}
            assert site.send("POST", "/event-streams", json=stream).status_code == 201
    whole = site.get(f"{path}?limit=500").json
    assert whole["next"] is None
    assert len(whole["items"]) >= 3
    for limit in (1, 2, 7):
        found, cursor = [], ""
        while cursor is not None:
            page = site.get(f"{path}?limit={limit}" + (f"&cursor={cursor}" if cursor else "")).json
            assert len(page["items"]) <= limit
            found += page["items"]
            cursor = page["next"]
        assert found == whole["items"]
