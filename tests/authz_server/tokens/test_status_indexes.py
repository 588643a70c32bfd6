"""Indexes of status lists: each is in a list of its own resource server, whatever fails."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError

from authz_server.database.change_feed import ChangeSet
from authz_server.tokens.status_lists.entries import Entry
from authz_server.tokens.status_lists.indexes import MARGIN_SECONDS, BlockKey, StatusIndexes
from authz_server.tokens.status_lists.models import StatusBlock, StatusList
from authz_server.tokens.status_lists.purging import purge_status_lists
from authz_server.waiting import run
from support.roles import attached

NOW = 1_800_000_000
EVERYTHING = ChangeSet(everything=True, subjects={})


class FallibleDatabase:
    """A database whose next commit can fail."""

    def __init__(self, database) -> None:
        self.database = database
        self.fails = False

    @contextmanager
    def transaction(self):
        with self.database.transaction() as session:
            yield session
            if self.fails:
                raise OperationalError("COMMIT", None, Exception("away"))


@pytest.fixture
def database(database_url):
    with attached(database_url) as database:
        yield FallibleDatabase(database)


def reserve(indexes: StatusIndexes, server: str, ends_at: int = NOW + 3_600) -> Entry:
    key = BlockKey(server, "client", "scope", "kid", ends_at)
    return run(indexes.reserve(key, lambda: NOW * 1_000_000))[0]


def owner_of(database, entry: Entry) -> str:
    with database.database.reading() as session:
        return session.get(StatusList, entry.list_id).resource_server_id


def test_a_list_that_was_rolled_back_is_not_used(database):
    """SQLite gives its id to the next list, which may be that of another resource server."""
    indexes, other = StatusIndexes(database, 3_600), StatusIndexes(database, 3_600)
    database.fails = True
    with pytest.raises(OperationalError):
        reserve(indexes, "mapper")
    database.fails = False
    theirs = reserve(other, "disburse")
    own = reserve(indexes, "mapper")
    assert (owner_of(database, theirs), owner_of(database, own)) == ("disburse", "mapper")
    assert own.list_id != theirs.list_id


def test_no_list_has_the_id_of_one_that_was_purged(database):
    """A resource server that still holds the former list would take it for the new one."""
    indexes = StatusIndexes(database, 3_600)
    former = [reserve(indexes, name).list_id for name in ("mapper", "disburse")]
    later = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=3_600 + MARGIN_SECONDS + 1)
    with database.transaction() as session:
        while purge_status_lists(session, later, 500):
            pass
    new = reserve(StatusIndexes(database, 3_600), "mapper", NOW + 7_200).list_id
    assert new not in former
    with database.transaction() as session:
        while purge_status_lists(session, later, 500):
            pass
        left = {each.id for each in session.query(StatusList)}
        blocks = {each.list_id for each in session.query(StatusBlock)}
    assert (left, blocks) == ({new}, {new})


def test_a_block_that_a_restored_database_lacks_is_not_used(database):
    indexes = StatusIndexes(database, 3_600)
    reserve(indexes, "mapper")
    with database.transaction() as session:
        session.execute(delete(StatusBlock))
        session.execute(delete(StatusList))
    with database.database.reading() as session:
        indexes.apply(session, EVERYTHING)
    reserve(StatusIndexes(database, 3_600), "disburse")
    assert owner_of(database, reserve(indexes, "mapper")) == "mapper"
