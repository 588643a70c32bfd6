"""Indexes for new tokens: blocks of them for each process, so that no token needs a row.

A block belongs to one client, audience, set of scopes and key. Its row is committed before its
first index is used. If the process ends, the rest of the block stays unused.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from authz_server.database.change_feed import ChangeSet
from authz_server.database.orm import Database, insert_into
from authz_server.tokens.models import RevocationCutOff
from authz_server.tokens.status_lists.entries import LIST_SIZE, Entry
from authz_server.tokens.status_lists.models import StatusBlock, StatusList
from authz_server.waiting import Batch, BatchedStep, Lane, Step

#: The sizes of blocks: a client that asks for more tokens in a period gets larger ones.
SMALLEST_BLOCK = 4
LARGEST_BLOCK = 4_096
_GROWTH = 4
#: How long a list is kept after its last token has expired, for clocks that differ.
MARGIN_SECONDS = 120
_REMEMBERED_BLOCKS = 1_024
#: A resource server, and the end of a period in seconds since 1970.
_Place = tuple[str, int]


class BlockKey(NamedTuple):
    """The tokens that share a block.

    Attributes:
        resource_server_id: whose list they are in.
        client_id: their client.
        scopes: their scopes as the tokens carry them, separated by spaces.
        kid: the key that signs them.
        ends_at: the end of the period of their expiry, in seconds since 1970.
        origins: the tokens that they were exchanged from, as JSON; empty: none.
        details: their authorization details, as JSON; empty: none.
        audience: their audience, separated by spaces.
    """

    resource_server_id: str
    client_id: str
    scopes: str
    kid: str
    ends_at: int
    origins: str = ""
    details: str = ""
    audience: str = ""

    @property
    def is_rare(self) -> bool:
        """Whether few tokens have this key, so that the rest of a block would stay in memory."""
        return bool(self.origins or self.details)


class _Block(NamedTuple):
    list_id: int
    size: int
    created: int
    free: list[int]


class StatusIndexes(Batch[tuple[BlockKey, int], None]):
    """Gives each token an index of a status list.

    Args:
        database: stores the lists and blocks.
        period_seconds: the tokens that expire within a period of this length share a list.
    """

    def __init__(self, database: Database, period_seconds: int) -> None:
        self._database = database
        self._period_seconds = period_seconds
        self._blocks: dict[BlockKey, _Block] = {}
        self._numbers: dict[_Place, tuple[int, int]] = {}
        self._remembered = _REMEMBERED_BLOCKS
        self._cut_off = -1

    def apply(self, session: Session, changes: ChangeSet) -> None:
        """Use no block any more from before the latest cut-off: the cut-off ends all of it.

        Nor one from before everything changed: a restored database does not have it.
        """
        if changes.everything:
            self._blocks, self._numbers = {}, {}
        if changes.everything or "cut_off" in changes.subjects:
            latest = session.scalar(select(func.max(RevocationCutOff.instant_microseconds)))
            self._cut_off = -1 if latest is None else latest

    def end_of_period(self, expires_at: int) -> int:
        """Return the end of the period in which tokens expire at ``expires_at`` (seconds)."""
        # A token that waits for its block is issued, and expires, a little later.
        seconds = self._period_seconds
        return ((expires_at + MARGIN_SECONDS // 2) // seconds + 1) * seconds

    async def reserve(self, key: BlockKey, now: Callable[[], int]) -> tuple[Entry, int]:
        """Return an index for one token, and its time of issue in microseconds since 1970.

        Args:
            key: the kind of token.
            now: returns the present time in microseconds.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: no block can be stored.
        """
        while True:
            at = now()
            block = self._blocks.get(key)
            if block is not None and not block.created <= self._cut_off < at:
                try:
                    position = block.free.pop()
                except IndexError:
                    pass
                else:
                    if key.is_rare and not block.free:
                        self._blocks.pop(key, None)
                    return Entry(block.list_id, position), max(at, block.created)
            await BatchedStep(self, (key, at))

    async def perform(self, values: Sequence[tuple[BlockKey, int]]) -> Sequence[None]:
        """Store a block for each kind of token that waits for one, in one transaction."""
        await Step(Lane.DATABASE, partial(self._allocate, values))
        return [None] * len(values)

    def _allocate(self, values: Sequence[tuple[BlockKey, int]]) -> None:
        wanted = Counter(key for key, _ in values)
        now = max(at for _, at in values)
        sizes = {
            key: self._size_for(key, count, now)
            for key, count in wanted.items()
            if not self._has_free(key, count, now)
        }
        by_list: defaultdict[_Place, list[BlockKey]] = defaultdict(list)
        for key in sizes:
            by_list[key.resource_server_id, key.ends_at].append(key)
        made: dict[BlockKey, _Block] = {}
        numbers: dict[_Place, tuple[int, int]] = {}
        with self._database.transaction() as session:
            # The same order in every process, so that none waits for another in a circle.
            for place in sorted(by_list):
                taking = partial(self._take, session, place, numbers)
                made |= _store(session, by_list[place], sizes, now, taking)
        for key, block in made.items():
            if key.is_rare:
                del block.free[wanted[key] :]
        # Only now are the rows durable: SQLite gives the id of one that was rolled back again.
        self._blocks |= made
        self._numbers |= numbers
        self._forget_old(now // 1_000_000)

    def _has_free(self, key: BlockKey, count: int, now: int) -> bool:
        block = self._blocks.get(key)
        return (
            block is not None
            and len(block.free) >= count
            and not block.created <= self._cut_off < now
        )

    def _size_for(self, key: BlockKey, count: int, now: int) -> int:
        block = self._blocks.get(key)
        size = SMALLEST_BLOCK
        if block is not None and block.created > now - self._period_seconds * 1_000_000:
            size = block.size * _GROWTH
        while size < count:
            size *= _GROWTH
        return min(size, LARGEST_BLOCK)

    def _take(
        self, session: Session, place: _Place, numbers: dict[_Place, tuple[int, int]], size: int
    ) -> tuple[int, int]:
        """Take ``size`` indexes of the list of a resource server and period, or of a new one.

        ``numbers`` receives the list, for the time after the commit.
        """
        number, list_id = numbers.get(place) or self._numbers.get(place, (-1, 0))
        while True:
            taken = session.execute(
                update(StatusList)
                .where(
                    StatusList.id == list_id,
                    StatusList.resource_server_id == place[0],
                    StatusList.next_index <= LIST_SIZE - size,
                )
                .values(next_index=StatusList.next_index + size)
                .returning(StatusList.next_index)
            ).scalar()
            if taken is not None:
                numbers[place] = (number, list_id)
                return list_id, taken - size
            number += 1
            list_id = _find_list(session, place, number)

    def _forget_old(self, now: int) -> None:
        if len(self._blocks) <= self._remembered:
            return
        self._blocks = {key: block for key, block in self._blocks.items() if key.ends_at > now}
        self._numbers = {place: each for place, each in self._numbers.items() if place[1] > now}
        self._remembered = max(_REMEMBERED_BLOCKS, 2 * len(self._blocks))


def _store(
    session: Session,
    keys: Iterable[BlockKey],
    sizes: dict[BlockKey, int],
    now: int,
    take: Callable[[int], tuple[int, int]],
) -> dict[BlockKey, _Block]:
    """Store a block of each key, with indexes that ``take`` returns for its size."""
    made = {}
    for key in keys:
        size = sizes[key]
        list_id, start = take(size)
        session.execute(
            insert(StatusBlock).values(
                list_id=list_id,
                start=start,
                size=size,
                client_id=key.client_id,
                scopes=key.scopes,
                kid=key.kid,
                origins=key.origins,
                details=key.details,
                audience=key.audience,
                created_microseconds=now,
            )
        )
        free = list(range(start, start + size))
        random.shuffle(free)
        made[key] = _Block(list_id, size, now, free)
    return made


def _find_list(session: Session, place: _Place, number: int) -> int:
    """Return the id of a list, which is made unless there is one."""
    resource_server_id, ends_at = place
    expires_at = datetime.fromtimestamp(ends_at + MARGIN_SECONDS, UTC)
    session.execute(
        insert_into(session, StatusList)
        .values(
            resource_server_id=resource_server_id,
            expires_at=expires_at,
            number=number,
            next_index=0,
            version=0,
        )
        .on_conflict_do_nothing()
    )
    return session.scalars(
        select(StatusList.id).where(
            StatusList.resource_server_id == resource_server_id,
            StatusList.expires_at == expires_at,
            StatusList.number == number,
        )
    ).one()
