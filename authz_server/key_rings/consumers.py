"""Who reads the JWKS, and since when: whether the verifiers know the next key before it signs."""

import ipaddress
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import String, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.orm import Base

#: One process remembers so many readers between two writings; the one longest silent gives way.
MAXIMUM_READERS = 1_000
#: Beyond these, readers of one network are one: nobody fills the table by inventing names.
MAXIMUM_AGENTS_PER_NETWORK = 20
MANY_AGENTS = "(others)"
MAXIMUM_AGENT_CHARACTERS = 100
READERS_KEPT = timedelta(days=30)

_IPV4_BITS, _IPV6_BITS = 24, 48


class JwksReader(Base):
    """A reader of the JWKS and its last fetch on any node."""

    __tablename__ = "jwks_reader"

    user_agent: Mapped[str] = mapped_column(String(MAXIMUM_AGENT_CHARACTERS), primary_key=True)
    network: Mapped[str] = mapped_column(String(50), primary_key=True)
    last_fetched_at: Mapped[datetime] = mapped_column(index=True)


class ReaderName(NamedTuple):
    """What is known of a reader: what it calls itself, and the network that it asks from."""

    user_agent: str
    network: str

    def __str__(self) -> str:
        """Return both, for people."""
        return f"{self.user_agent or 'no user agent'} ({self.network or 'unknown network'})"


class ReaderRow(NamedTuple):
    """A reader and its last fetch."""

    name: ReaderName
    last_fetched_at: datetime


@dataclass(frozen=True, slots=True)
class Readiness:
    """How many readers can know a key.

    Attributes:
        seen: How many asked within the window.
        fetched_since: How many of those have asked since the key was published everywhere.
        missing: The others, the one longest silent first.
    """

    seen: int
    fetched_since: int
    missing: tuple[ReaderRow, ...]


class JwksReaders:
    """What one process has seen of the readers since it last wrote that down.

    Args:
        clock: Returns the present, timezone-aware.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._fetched: dict[ReaderName, datetime] = {}

    def note(self, user_agent: str, address: str) -> None:
        """Note that a reader has the present JWKS; costs microseconds and never raises.

        Args:
            user_agent: As the request says.
            address: Its source address; whatever cannot be read counts as unknown.
        """
        name = ReaderName(_printable(user_agent), network_of(address))
        now = self._clock()
        with self._lock:
            self._fetched.pop(name, None)
            self._fetched[name] = now
            if len(self._fetched) > MAXIMUM_READERS:
                del self._fetched[next(iter(self._fetched))]

    def drain(self) -> dict[ReaderName, datetime]:
        """Return what was noted since the last call, and forget it."""
        with self._lock:
            drained, self._fetched = self._fetched, {}
        return drained

    def restore(self, drained: dict[ReaderName, datetime]) -> None:
        """Remember again what could not be written down."""
        with self._lock:
            merged = dict(sorted((drained | self._fetched).items(), key=lambda each: each[1]))
            self._fetched = dict(list(merged.items())[-MAXIMUM_READERS:])


def network_of(address: str) -> str:
    """Return the network of an address, truncated to /24 or /48; empty where it is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    # A listener for both families shows IPv4 peers as mapped addresses.
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    bits = _IPV4_BITS if parsed.version == 4 else _IPV6_BITS  # noqa: PLR2004 - IPv4
    return str(ipaddress.ip_network((parsed, bits), strict=False))


def write_readers(session: Session, fetched: Mapping[ReaderName, datetime]) -> None:
    """Write down the last fetch of each reader, unless a later one is known."""
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
    # In one order everywhere, so that two nodes never wait for each other.
    for name in sorted(latest):
        _write_reader(session, name, latest[name])


def _within_limit(name: ReaderName, agents: set[str]) -> ReaderName:
    if name.user_agent not in agents and len(agents) >= MAXIMUM_AGENTS_PER_NETWORK:
        return name._replace(user_agent=MANY_AGENTS)
    agents.add(name.user_agent)
    return name


def _write_reader(session: Session, name: ReaderName, at: datetime) -> None:
    dialect = session.get_bind().dialect.name
    insertion = (postgresql if dialect == "postgresql" else sqlite).insert(JwksReader)
    insertion = insertion.values(
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
    """Delete the readers that have been silent for 30 days; return how many."""
    statement = delete(JwksReader).where(JwksReader.last_fetched_at < now - READERS_KEPT)
    return session.execute(statement).rowcount  # type: ignore[attr-defined,no-any-return]


def load_jwks_readers(session: Session, since: datetime) -> tuple[ReaderRow, ...]:
    """Return the readers that asked at ``since`` or later, the one longest silent first."""
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
    """Return which of the readers seen since ``window_start`` can know a key.

    Args:
        readers: As loaded.
        published_at: When the key entered the JWKS.
        window_start: Whoever has not asked since is no reader any more.
        spread_seconds: For so long after ``published_at`` a fetch may have met a node that had not
            read the key yet: it does not count.
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
