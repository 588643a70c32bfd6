"""The admin API on a node whose clock is off the database's: what it ends, and when."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from authz_server.tokens.models import RevocationCutOff
from support.admin_site import require_problem, running_admin_site

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=[-HOUR, HOUR], ids=["ahead", "behind"])
def off(request, tmp_path, postgresql_url, database_clock):
    """An admin API, and how far the database's clock is ahead; the node has not noticed yet."""
    with running_admin_site(tmp_path, postgresql_url) as site:
        site.token()
        site.new_client(id="ministry")
        database_clock.set_ahead(request.param.total_seconds())
        yield site, request.param


def test_tokens_end_at_the_databases_present(off):
    site, ahead = off
    done = site.send("POST", "/revocations", json={"client": "ministry"})
    assert done.status_code == 201, done.text
    reported = datetime.fromisoformat(done.json["issued_up_to"])
    assert abs(reported - site.clock() - ahead) < MINUTE
    assert site.change("DELETE", "/clients/ministry").status_code == 200
    with site.services.database.reading() as session:
        found = session.scalars(select(RevocationCutOff.instant_microseconds)).all()
    assert len(found) == 2
    present = (site.clock() + ahead).timestamp()
    assert all(abs(each / 1_000_000 - present) < 60 for each in found)


def test_a_time_that_no_clock_has_reached_is_refused(off):
    site, _ = off
    body = {"before": (site.clock() + 2 * HOUR).isoformat()}
    require_problem(site.send("POST", "/revocations", json=body), 422, "invalid-value")
