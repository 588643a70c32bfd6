"""Keep a process from serving with the schema of another release."""

import logging
import time
from collections.abc import Callable
from threading import Lock

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from authz_server.database.errors import describe_failure, with_driver_error
from authz_server.database.schema import SchemaError
from authz_server.logs import redact
from keys.forks import on_fork

logger = logging.getLogger(__name__)

#: The pause after a reading of the schema, unless it is this release's.
AGAIN_SECONDS = 5.0


class SchemaGate:
    """Reads the schema until it is this release's; each process reads it for itself.

    While the database does not answer, the last known result counts. A process without one serves:
    its requests find the same failure.

    Args:
        require: raises SchemaError if the schema is another release's, or SQLAlchemy's errors.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self, require: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._require = require
        self._monotonic = monotonic
        self._begin_again()
        on_fork(self._begin_again)

    def may_serve(self) -> bool:
        """Return whether requests may be answered, as far as is known.

        Reads the schema at most once in :data:`AGAIN_SECONDS`. Others wait for the first reading
        alone.
        """
        if self._is_right:
            return True
        if self._monotonic() >= self._again_at and self._lock.acquire(blocking=not self._has_read):
            try:
                if self._monotonic() >= self._again_at:
                    self._read()
            finally:
                self._lock.release()
        return not self._refusal

    def _begin_again(self) -> None:
        self._lock = Lock()
        self._is_right = self._has_read = False
        self._again_at = -AGAIN_SECONDS
        self._refusal = ""

    def _read(self) -> None:
        before = self._refusal
        try:
            self._require()
        except SchemaError as error:
            self._refusal = str(error)
        except with_driver_error(OperationalError, name="OperationalError"):
            # A database that does not answer yet is waited for.
            pass
        except SQLAlchemyError as error:
            self._refusal = f"The schema cannot be read: {redact(describe_failure(error))}"
        else:
            self._is_right, self._refusal = True, ""
        if self._refusal and self._refusal != before:
            logger.error("requests are refused with 503. %s", self._refusal)
        self._again_at = self._monotonic() + AGAIN_SECONDS
        self._has_read = True
