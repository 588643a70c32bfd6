"""Metrics recorder of one serving process."""

import math
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.utils import floatToGoString

from authz_server.metrics import definitions as families
from authz_server.metrics.definitions import VAULT_TOKEN_EXPIRY, Family

_BOUNDS = (*families.REQUEST_SECONDS.buckets, math.inf)
_Mode = Literal["livemax", "livemin", "livemostrecent", "max"]


class MetricsObserver:
    """Records every event in the metrics of ``authz_server.metrics.definitions``.

    Args:
        present: returns seconds since 1970.
    """

    def __init__(self, present: Callable[[], float] = time.time) -> None:
        self._present = present
        registry = CollectorRegistry()
        self._sign_seconds = _histogram(families.SIGN_SECONDS, registry)
        self._mismatch = _counter(families.SIGN_MISMATCH, registry)
        self._batch_size = _histogram(families.BATCH_SIZE, registry)
        self._alarms = _counter(families.KEY_ALARMS, registry)
        self._backend_up = _gauge(families.BACKEND_UP, registry, "livemostrecent")
        self._viewed = _gauge(families.VIEW_SUCCESS, registry, "max")
        self._token_expiry = _gauge(VAULT_TOKEN_EXPIRY, registry, "livemin")
        self._token_full_ttl = _gauge(families.VAULT_TOKEN_FULL_TTL, registry, "livemax")
        self._jwks_fetch = _counter(families.JWKS_FETCH, registry)
        self._unknown_kid = _counter(families.UNKNOWN_KID, registry)
        self._requests = _counter(families.REQUESTS, registry)
        self._times = _counter(families.REQUEST_TIMES, registry)
        self._times_sum = _counter(families.REQUEST_TIMES_SUM, registry)
        self._shed = _counter(families.REQUESTS_SHED, registry)
        self._adds_up = False
        self._answered: dict[tuple[str, str], int] = {}
        self._took: dict[tuple[str, float], int] = {}
        self._took_sum: dict[str, float] = {}

    def signed(self, backend: str, alg: str, result: str, seconds: float) -> None:
        """Count one signing request to a remote backend."""
        self._sign_seconds.labels(backend, alg, result).observe(seconds)

    def mismatch(self, ring: str, kid: str) -> None:
        """Count a discarded signature."""
        del kid
        self._mismatch.labels(ring).inc()

    def unknown_kid(self) -> None:
        """Count a token with an unknown ``kid``."""
        self._unknown_kid.inc()

    def backend_up(self, uri: str) -> None:
        """Record that a backend answers."""
        self._backend_up.labels(uri).set(1)

    def backend_down(self, uri: str, reason: str) -> None:
        """Record that a backend does not answer."""
        del reason
        self._backend_up.labels(uri).set(0)

    def vault_token(self, vault: str, ttl_seconds: float, full_ttl_seconds: float) -> None:
        """Record a Vault token's remaining and full lifetime; a full lifetime of 0 is infinite."""
        full = full_ttl_seconds if full_ttl_seconds > 0 else math.inf
        left = ttl_seconds if full < math.inf else math.inf
        self._token_expiry.labels(vault).set(self._present() + left)
        self._token_full_ttl.labels(vault).set(full)

    def batch(self, size: int) -> None:
        """Count one request with ``size`` inputs."""
        self._batch_size.observe(size)

    def viewed(self, ring: str) -> None:
        """Record that a ring's backend was observed."""
        self._viewed.labels(ring).set(self._present())

    def alarm(self, event: str, subject: str, detail: str) -> None:
        """Count an alarm."""
        del subject, detail
        self._alarms.labels(event).inc()

    def jwks_fetched(self, *, has_next: bool) -> None:
        """Count one fetch of the JWKS."""
        self._jwks_fetch.labels("true" if has_next else "false").inc()

    def answered(self, endpoint: str, outcome: str, seconds: float) -> None:
        """Count one request to a protocol endpoint."""
        answered, took, sums = self._answered, self._took, self._took_sum
        kind, bound = (endpoint, outcome), (endpoint, _BOUNDS[bisect_left(_BOUNDS, seconds)])
        answered[kind] = answered.get(kind, 0) + 1
        took[bound] = took.get(bound, 0) + 1
        sums[endpoint] = sums.get(endpoint, 0.0) + seconds
        if not self._adds_up:
            self.flush()

    def add_up(self) -> None:
        """Add up requests in memory, and write them only at :meth:`flush`."""
        self._adds_up = True

    def flush(self) -> None:
        """Write the added-up requests."""
        if not self._answered:
            return
        answered, took, sums = self._answered, self._took, self._took_sum
        self._answered, self._took, self._took_sum = {}, {}, {}
        for kind, count in answered.items():
            self._requests.labels(*kind).inc(count)
        for (endpoint, bound), count in took.items():
            le = floatToGoString(bound)  # type: ignore[no-untyped-call]
            self._times.labels(endpoint, le).inc(count)
        for endpoint, total in sums.items():
            self._times_sum.labels(endpoint).inc(total)

    def shed(self, count: int) -> None:
        """Count requests that were refused unread."""
        self._shed.inc(count)


# The exporter adds the help text; the one in the files is not used.
_HELP = "see the exporter"


def _counter(family: Family, registry: CollectorRegistry) -> Counter:
    return Counter(family.name, _HELP, family.labels, registry=registry)


def _gauge(family: Family, registry: CollectorRegistry, mode: _Mode) -> Gauge:
    return Gauge(family.name, _HELP, family.labels, registry=registry, multiprocess_mode=mode)


def _histogram(family: Family, registry: CollectorRegistry) -> Histogram:
    return Histogram(family.name, _HELP, family.labels, registry=registry, buckets=family.buckets)
