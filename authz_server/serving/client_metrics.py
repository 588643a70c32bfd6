"""Metrics of secrets, cut-offs and changes in the database."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import func, select

from authz_server.audit.pending_changes import PENDING, UNCONFIRMED, count_changes
from authz_server.clients.models import Client, ClientSecret
from authz_server.database.orm import Database
from authz_server.metrics import definitions as families
from authz_server.metrics.rings import Sample
from authz_server.tokens.models import RevocationCutOff

SECRET_DAYS = (1, 7, 30, 90)


def sample_clients(database: Database, now: datetime) -> Iterator[Sample]:
    """Yield the numbers of secrets that expire soon, of cut-offs, and of changes that wait.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    secrets = (
        select(ClientSecret.expires_at, ClientSecret.ended_at)
        .join(Client, Client.id == ClientSecret.client_id)
        .where(Client.enabled)
    )
    cut_offs = (
        select(RevocationCutOff.kind, func.count())
        .where(RevocationCutOff.expires_at > now)
        .group_by(RevocationCutOff.kind)
    )
    with database.reading() as session:
        ends = [
            min(filter(None, row), default=datetime.max.replace(tzinfo=now.tzinfo))
            for row in session.execute(secrets)
        ]
        counted = {kind: count for kind, count in session.execute(cut_offs)}  # noqa: C416 - typed rows
        changes = count_changes(session)
    left = [end - now for end in ends if end > now]
    for days in SECRET_DAYS:
        within = sum(each <= timedelta(days=days) for each in left)
        yield Sample(families.SECRETS, (str(days),), within)
    yield Sample(families.SECRETS, ("any",), len(left))
    for kind in ("client", "key", "scope", "audience", "all"):
        yield Sample(families.CUT_OFFS, (kind,), counted.get(kind, 0))
    yield Sample(families.PENDING_CHANGES, (), changes[PENDING])
    yield Sample(families.UNCONFIRMED_EMERGENCIES, (), changes[UNCONFIRMED])
