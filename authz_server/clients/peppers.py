"""Secrets in the database that were made with another pepper: they are refused."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

from sqlalchemy import Select, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from authz_server.clients.models import ClientSecret
from authz_server.clients.registration.models import InitialAccessToken, Registration
from authz_server.database.orm import Database
from authz_server.settings import SettingsError

logger = logging.getLogger(__name__)


def count_secrets(session: Session, fingerprint: str, now: datetime) -> tuple[int, int]:
    """Return how many secrets and tokens of registration were made with a pepper, or another one.

    Those that have ended do not count, nor those whose pepper is not known.

    Args:
        session: for reading.
        fingerprint: the fingerprint of the pepper.
        now: the present time.
    """
    counts: Counter[str | None] = Counter()
    for query in _queries(now):
        for made_with, number in session.execute(query):
            counts[made_with] += number
    return counts[fingerprint], counts.total() - counts[fingerprint]


def require_own_pepper(session: Session, fingerprint: str, now: datetime) -> None:
    """Raise if secrets were made with another pepper, and none with this one.

    Args:
        session: for reading.
        fingerprint: the fingerprint of the pepper.
        now: the present time.

    Raises:
        SettingsError: gives the number of the secrets.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    own, others = count_secrets(session, fingerprint, now)
    if others and not own:
        raise SettingsError(
            f"the secrets and tokens of registration in the database ({others}) were made with "
            f"another pepper than this one, whose fingerprint is {fingerprint}: each is refused",
            key="clients.secret_pepper",
            remedy="Bring back the pepper with which they were made: a further node has the "
            "settings and secrets of the first. If it was replaced on purpose, every client needs "
            "a new secret; `authz-server client secret due` lists them.",
        )


class PepperReadiness:
    """Looks for secrets of another pepper at intervals, for readiness; logs each change once.

    Args:
        database: the database to check.
        fingerprint: the fingerprint of the pepper.
        clock: returns the present time.
        monotonic: returns monotonic seconds.
    """

    INTERVAL_SECONDS = 30.0

    def __init__(
        self,
        database: Database,
        fingerprint: str,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._fingerprint = fingerprint
        self._clock = clock
        self._monotonic = monotonic
        self._until = 0.0
        self._problem = ""

    def degradations(self) -> list[str]:
        """Return the problem that was last found, if any.

        Clients without a secret still obtain tokens. Another check detects a database that does
        not answer.
        """
        if self._monotonic() >= self._until:
            self._check()
        return [self._problem] if self._problem else []

    def _check(self) -> None:
        problem = ""
        # Also for a look that fails: a large table is not read again for each request.
        self._until = self._monotonic() + self.INTERVAL_SECONDS
        try:
            with self._database.reading() as session:
                require_own_pepper(session, self._fingerprint, self._clock())
        except SettingsError as error:
            problem = str(error)
        except SQLAlchemyError:
            return
        if problem != self._problem:
            if problem:
                logger.warning("%s", problem)
            else:
                logger.info("the database has secrets that were made with this pepper")
            self._problem = problem


def _queries(now: datetime) -> Iterator[Select[str | None, int]]:
    """Yield the queries that count the working secrets of each table by their pepper."""
    secret, token = ClientSecret, InitialAccessToken
    for column, *conditions in (
        (
            secret.pepper_fingerprint,
            secret.ended_at.is_(None),
            or_(secret.expires_at.is_(None), secret.expires_at > now),
        ),
        (
            token.pepper_fingerprint,
            token.ended_at.is_(None),
            token.expires_at > now,
            token.uses_left > 0,
        ),
        (Registration.pepper_fingerprint,),
    ):
        counted = select(column, func.count()).where(column.is_not(None), *conditions)
        yield counted.group_by(column)
