"""Readers of the JWKS: noted in little memory, stored, compared with a publication."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from authz_server.database.orm import open_database
from authz_server.key_rings.consumers import (
    MANY_AGENTS,
    MAXIMUM_AGENTS_PER_NETWORK,
    MAXIMUM_READERS,
    READERS_KEPT,
    JwksReaders,
    ReaderName,
    ReaderRow,
    load_jwks_readers,
    network_of,
    purge_readers,
    readiness,
    write_readers,
)
from authz_server.settings import DatabaseSettings
from support.clock import FakeClock

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock():
    return FakeClock(NOW)


@pytest.fixture
def readers(clock):
    return JwksReaders(clock)


@pytest.fixture
def database(database_url):
    database = open_database(DatabaseSettings(url=database_url))
    yield database
    database.close()


def write(database, fetched) -> None:
    with database.transaction() as session:
        write_readers(session, fetched)


def load(database, since=NOW - READERS_KEPT) -> dict[tuple[str, str], datetime]:
    with database.reading() as session:
        return {tuple(row.name): row.last_fetched_at for row in load_jwks_readers(session, since)}


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("unix:", ""),
        ("192.0.2.256", ""),
        ("' OR 1=1", ""),
    ],
)
def test_an_address_is_known_by_its_network_alone(address, network):
    assert network_of(address) == network


def test_the_last_fetch_of_each_reader_counts(readers, clock):
    readers.note("PyJWT/2", "192.0.2.1")
    clock.advance(60)
    readers.note("PyJWT/2", "192.0.2.250")
    readers.note("PyJWT/2", "198.51.100.1")
    readers.note("nimbus/9", "192.0.2.1")
    assert readers.drain() == {
        ReaderName("PyJWT/2", "192.0.2.0/24"): NOW + MINUTE,
        ReaderName("PyJWT/2", "198.51.100.0/24"): NOW + MINUTE,
        ReaderName("nimbus/9", "192.0.2.0/24"): NOW + MINUTE,
    }
    assert readers.drain() == {}


def test_whatever_a_reader_calls_itself_is_kept_short_and_printable(readers):
    for agent in ("a" * 5_000, "evil\r\n\x1b[31m\x00name", "caf\xe9", ""):
        readers.note(agent, "192.0.2.1")
    agents = [name.user_agent for name in readers.drain()]
    assert agents == ["a" * 100, "evil???[31m?name", "caf?", ""]


def test_memory_is_bounded_and_the_one_longest_silent_gives_way(readers):
    readers.note("steady", "192.0.2.1")
    readers.note("silent", "192.0.2.1")
    for number in range(MAXIMUM_READERS - 1):
        if number == MAXIMUM_READERS - 2:
            readers.note("steady", "192.0.2.1")
        readers.note(f"agent {number}", "192.0.2.1")
    taken = readers.drain()
    agents = {name.user_agent for name in taken}
    assert len(taken) == MAXIMUM_READERS
    assert "steady" in agents
    assert "silent" not in agents


def test_what_cannot_be_written_is_not_forgotten(readers, clock):
    readers.note("first", "192.0.2.1")
    readers.note("second", "192.0.2.1")
    taken = readers.drain()
    clock.advance(60)
    readers.note("second", "192.0.2.1")
    readers.restore(taken)
    assert [(name.user_agent, at) for name, at in readers.drain().items()] == [
        ("first", NOW),
        ("second", NOW + MINUTE),
    ]


def test_a_later_fetch_is_never_written_over(database):
    name = ReaderName("PyJWT/2", "192.0.2.0/24")
    write(database, {name: NOW})
    write(database, {name: NOW - MINUTE, ReaderName("", ""): NOW})
    assert load(database) == {tuple(name): NOW, ("", ""): NOW}
    write(database, {name: NOW + MINUTE})
    write(database, {})
    assert load(database)[tuple(name)] == NOW + MINUTE
    assert load(database, since=NOW + MINUTE) == {tuple(name): NOW + MINUTE}


def test_a_network_cannot_fill_the_table_with_names(database):
    first = ReaderName("a verifier", "192.0.2.0/24")
    write(database, {first: NOW})
    for batch in range(3):
        names = [ReaderName(f"{batch}-{number}", "192.0.2.0/24") for number in range(500)]
        write(database, dict.fromkeys([*names, first], NOW + batch * MINUTE))
    write(database, {ReaderName("another", "198.51.100.0/24"): NOW})
    rows = load(database)
    agents = {agent for agent, network in rows if network == "192.0.2.0/24"}
    assert len(agents) == MAXIMUM_AGENTS_PER_NETWORK + 1
    assert {"a verifier", MANY_AGENTS} <= agents
    assert rows["a verifier", "192.0.2.0/24"] == NOW + 2 * MINUTE
    assert ("another", "198.51.100.0/24") in rows


def test_several_nodes_write_at_once(database):
    names = [ReaderName(f"agent {number}", "192.0.2.0/24") for number in range(10)]

    def run(node: int) -> None:
        write(database, dict.fromkeys(names[node:] + names[:node], NOW + node * MINUTE))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(8)))
    assert set(load(database).values()) == {NOW + 7 * MINUTE}


def test_readers_that_were_silent_for_30_days_are_forgotten(database):
    old, new = ReaderName("old", ""), ReaderName("new", "")
    write(database, {old: NOW - READERS_KEPT - MINUTE, new: NOW - READERS_KEPT + MINUTE})
    with database.transaction() as session:
        assert purge_readers(session, NOW) == 1
    assert set(load(database)) == {("new", "")}


def row(agent: str, at: datetime) -> ReaderRow:
    return ReaderRow(ReaderName(agent, "192.0.2.0/24"), at)


def test_readiness_names_who_has_not_asked_since():
    """Those who asked while a node may still have had the old JWKS are missing too."""
    published = NOW - timedelta(hours=1)
    rows = [
        row("gone", NOW - timedelta(days=9)),
        row("asked since", NOW - MINUTE),
        row("longest silent", NOW - timedelta(days=2)),
        row("just before", published - timedelta(seconds=1)),
        row("too soon", published + timedelta(seconds=10)),
        row("soon enough", published + timedelta(seconds=15)),
    ]
    found = readiness(rows, published, NOW - timedelta(days=7), spread_seconds=15)
    assert (found.seen, found.fetched_since) == (5, 2)
    assert [each.name.user_agent for each in found.missing] == [
        "longest silent",
        "just before",
        "too soon",
    ]
    assert readiness(rows, published, NOW - timedelta(days=7), spread_seconds=0).fetched_since == 3
    assert readiness([], published, NOW, spread_seconds=15).missing == ()


def test_a_reader_has_a_name_that_people_can_read():
    assert str(ReaderName("PyJWT/2", "192.0.2.0/24")) == "PyJWT/2 (192.0.2.0/24)"
    assert str(ReaderName("", "")) == "no user agent (unknown network)"
