"""The exchange with a collector: bounded answers, and few lines in the log while it is away."""

import logging
import time
from http import HTTPStatus
from typing import Any

import requests

#: How often a process logs that a signal cannot be exported.
LOG_SECONDS = 300.0
#: The exporters log each batch that fails.
_LOGGERS = tuple(
    f"opentelemetry.exporter.otlp.proto.http.{name}"
    for name in ("trace_exporter", "metric_exporter", "_log_exporter")
)
#: A longer answer is not read, and its connection is not used again.
_READ_BYTES = 64
_LONGEST_DIGITS = 9


class CollectorSession(requests.Session):
    """Sends to a collector. The exporters need no more of an answer than its status."""

    def request(self, *arguments: Any, **named: Any) -> requests.Response:  # noqa: ANN401 - as inherited
        """Return the answer to a request; its body is not read if it is long.

        Raises:
            requests.RequestException: there is no answer, or it is a redirect, which the exporters
                would take for a success.
        """
        kept = {"stream": True, "allow_redirects": False}
        response = super().request(*arguments, **named | kept)
        length = response.headers.get("Content-Length", "")
        is_known = length.isdecimal() and len(length) <= _LONGEST_DIGITS
        if is_known and int(length) <= _READ_BYTES:
            _ = response.content
        else:
            response.close()
        if HTTPStatus.MULTIPLE_CHOICES <= response.status_code < HTTPStatus.BAD_REQUEST:
            raise requests.HTTPError(f"the answer has status {response.status_code}")
        return response


class _Seldom(logging.Filter):
    """Passes each message of a logger once in some time."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, str(record.msg)), time.monotonic()
        if now < self._next_at.get(key, 0.0):
            return False
        self._next_at[key] = now + LOG_SECONDS
        return True


_SELDOM = _Seldom()


def limit_log() -> None:
    """Log each kind of failure of an exporter once in some time."""
    for name in _LOGGERS:
        # A filter that is there already is not added again.
        logging.getLogger(name).addFilter(_SELDOM)
