"""Consumers of the JWKS and their last fetch, to find those that lack the next key."""

import ipaddress
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import String, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.orm import Base, insert_into

#: Largest number of consumers kept between two writes; the oldest one is dropped.
MAXIMUM_READERS = 1_000
#: Further consumers of a network are counted as one, so that invented names cannot fill the table.
MAXIMUM_AGENTS_PER_NETWORK = 20
MANY_AGENTS = "(others)"
MAXIMUM_AGENT_CHARACTERS = 100
READERS_KEPT = timedelta(days=30)

_IPV4_BITS, _IPV6_BITS = 24, 48


class JwksReader(Base):
    """A consumer of the JWKS and its last fetch on any node."""

    __tablename__ = "jwks_reader"

    user_agent: Mapped[str] = mapped_column(String(MAXIMUM_AGENT_CHARACTERS), primary_key=True)
    network: Mapped[str] = mapped_column(String(50), primary_key=True)
    last_fetched_at: Mapped[datetime] = mapped_column(index=True)


class ReaderName(NamedTuple):
    """The identity of a consumer: its user agent and its network."""

    user_agent: str
    network: str

    def __str__(self) -> str:
        """Return a readable name."""
        return f"{self.user_agent or 'no user agent'} ({self.network or 'unknown network'})"


class ReaderRow(NamedTuple):
    """A consumer and its last fetch."""

    name: ReaderName
    last_fetched_at: datetime


@dataclass(frozen=True, slots=True)
class Readiness:
    """The consumers that can know a key.

    Attributes:
        seen: the number of consumers within the window.
        fetched_since: the number of those that fetched since every node published the key.
        missing: the others, longest silent first.
    """

    seen: int
    fetched_since: int
    missing: tuple[ReaderRow, ...]


class JwksReaders:
    """The consumers that this process has seen since its last write.

    Args:
        clock: returns the present time, timezone-aware.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._fetched: dict[ReaderName, datetime] = {}

    def note(self, user_agent: str, address: str) -> None:
        """Record that a consumer has the present JWKS; takes microseconds and never raises.

        Args:
            user_agent: the ``User-Agent`` of the request.
            address: the client's address; an invalid one counts as unknown.
        """
        name = ReaderName(_printable(user_agent), network_of(address))
        now = self._clock()
        with self._lock:
            self._fetched.pop(name, None)
            self._fetched[name] = now
            if len(self._fetched) > MAXIMUM_READERS:
                del self._fetched[next(iter(self._fetched))]

    def drain(self) -> dict[ReaderName, datetime]:
        """Return and clear the consumers recorded since the last call."""
        with self._lock:
            drained, self._fetched = self._fetched, {}
        return drained

    def restore(self, drained: dict[ReaderName, datetime]) -> None:
        """Put back consumers that could not be written."""
        with self._lock:
            merged = dict(sorted((drained | self._fetched).items(), key=lambda each: each[1]))
            self._fetched = dict(list(merged.items())[-MAXIMUM_READERS:])


def network_of(address: str) -> str:
    """Return the /24 or /48 network of an address; empty for other text."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    # A listener for both families reports IPv4 peers as mapped addresses.
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    bits = _IPV4_BITS if parsed.version == 4 else _IPV6_BITS  # noqa: PLR2004 - IPv4
    return str(ipaddress.ip_network((parsed, bits), strict=False))


def write_readers(session: Session, fetched: Mapping[ReaderName, datetime]) -> None:
    """Write the last fetch of each consumer, unless a later one is stored."""
    if not fetched:
        return
    networks = {name.network for name in fetched}
    agents: dict[str, set[str]] = defaultdict(set)
    known = select(JwksReader.network, JwksReader.user_agent)
    for network, agent in session.execute(known.where(JwksReader.network.in_(networks))):
        agents[network].add(agent)
    latest: dict[ReaderName, datetime] = {}
    for name, at in fetched.items():
        kept = _within_limit(name, agents[name.network])
        latest[kept] = max(at, latest.get(kept, at))
    # The same order on every node prevents deadlocks.
    for name in sorted(latest):
        _write_reader(session, name, latest[name])


def _within_limit(name: ReaderName, agents: set[str]) -> ReaderName:
    if name.user_agent not in agents and len(agents) >= MAXIMUM_AGENTS_PER_NETWORK:
        return name._replace(user_agent=MANY_AGENTS)
    agents.add(name.user_agent)
    return name


def _write_reader(session: Session, name: ReaderName, at: datetime) -> None:
    insertion = insert_into(session, JwksReader).values(
        user_agent=name.user_agent, network=name.network, last_fetched_at=at
    )
    session.execute(
        insertion.on_conflict_do_update(
            index_elements=[JwksReader.user_agent, JwksReader.network],
            set_={"last_fetched_at": insertion.excluded.last_fetched_at},
            where=JwksReader.last_fetched_at < insertion.excluded.last_fetched_at,
        )
    )


def purge_readers(session: Session, now: datetime) -> int:
    """Delete the consumers without a fetch for 30 days; return the number of rows."""
    statement = delete(JwksReader).where(JwksReader.last_fetched_at < now - READERS_KEPT)
    return session.execute(statement).rowcount  # type: ignore[attr-defined,no-any-return]


def load_jwks_readers(session: Session, since: datetime) -> tuple[ReaderRow, ...]:
    """Return the consumers with a fetch at ``since`` or later, longest silent first."""
    statement = (
        select(JwksReader)
        .where(JwksReader.last_fetched_at >= since)
        .order_by(JwksReader.last_fetched_at, JwksReader.user_agent, JwksReader.network)
    )
    return tuple(
        ReaderRow(ReaderName(row.user_agent, row.network), row.last_fetched_at)
        for row in session.scalars(statement)
    )


def readiness(
    readers: Iterable[ReaderRow],
    published_at: datetime,
    window_start: datetime,
    *,
    spread_seconds: int,
) -> Readiness:
    """Return which of the consumers seen since ``window_start`` can know a key.

    Args:
        readers: the loaded consumers.
        published_at: the time at which the key entered the JWKS.
        window_start: a consumer without a fetch since is ignored.
        spread_seconds: within this time of ``published_at`` a fetch may have reached a node without
            the key, and does not count.
    """
    seen = sorted(
        (each for each in readers if each.last_fetched_at >= window_start),
        key=lambda each: (each.last_fetched_at, each.name),
    )
    known_at = published_at + timedelta(seconds=spread_seconds)
    missing = tuple(each for each in seen if each.last_fetched_at < known_at)
    return Readiness(len(seen), len(seen) - len(missing), missing)


def _printable(text: str) -> str:
    shown = text[:MAXIMUM_AGENT_CHARACTERS]
    return "".join(each if " " <= each <= "~" else "?" for each in shown)
