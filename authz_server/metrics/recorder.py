"""Metrics recorder of one serving process: a receiver of events."""

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.utils import floatToGoString

from authz_server.audit.notifier import Receiver
from authz_server.metrics import definitions as families
from authz_server.metrics.definitions import Family
from authz_server.metrics.events import (
    CountedAlone,
    DocumentFetched,
    EventDelivered,
    JwksFetched,
    PluginFailed,
    RequestAnswered,
    RequestsShed,
)
from keys.events import (
    Alarm,
    BackendAnswered,
    BackendFailed,
    BatchSent,
    RingObserved,
    SignatureDiscarded,
    Signed,
    UnknownKidPresented,
    VaultTokenHeld,
)

_BOUNDS = (*families.REQUEST_SECONDS.buckets, math.inf)


class MetricsRecorder:
    """Records events in the metrics of ``authz_server.metrics.definitions``.

    Args:
        present: returns seconds since 1970.

    Attributes:
        receivers: the receivers of events, by the kind of event.
    """

    def __init__(self, present: Callable[[], float] = time.time) -> None:
        self._present = present
        registry = CollectorRegistry()
        self._sign_seconds = _histogram(families.SIGN_SECONDS, registry)
        self._mismatch = _counter(families.SIGN_MISMATCH, registry)
        self._batch_size = _histogram(families.BATCH_SIZE, registry)
        self._alarms = _counter(families.KEY_ALARMS, registry)
        self._backend_up = _gauge(families.BACKEND_UP, registry)
        self._viewed = _gauge(families.VIEW_SUCCESS, registry)
        self._token_expiry = _gauge(families.VAULT_TOKEN_EXPIRY, registry)
        self._token_full_ttl = _gauge(families.VAULT_TOKEN_FULL_TTL, registry)
        self._jwks_fetch = _counter(families.JWKS_FETCH, registry)
        self._unknown_kid = _counter(families.UNKNOWN_KID, registry)
        self._requests = _counter(families.REQUESTS, registry)
        self._times = _counter(families.REQUEST_TIMES, registry)
        self._times_sum = _counter(families.REQUEST_TIMES_SUM, registry)
        self._shed = _counter(families.REQUESTS_SHED, registry)
        self._counted_alone = _counter(families.COUNTED_ALONE, registry)
        self._plugin_failures = _counter(families.PLUGIN_FAILURES, registry)
        self._documents = _counter(families.DOCUMENTS_FETCHED, registry)
        self._events = _counter(families.SECURITY_EVENTS, registry)
        self._adds_up = False
        self._answered: dict[tuple[str, str], int] = {}
        self._took: dict[tuple[str, float], int] = {}
        self._took_sum: dict[str, float] = {}
        self.receivers: Mapping[type, Receiver] = {
            Signed: self._count_signature,
            SignatureDiscarded: lambda event: self._mismatch.labels(event.ring).inc(),
            UnknownKidPresented: lambda _: self._unknown_kid.inc(),
            BackendAnswered: lambda event: self._backend_up.labels(event.uri).set(1),
            BackendFailed: lambda event: self._backend_up.labels(event.uri).set(0),
            VaultTokenHeld: self._keep_vault_token,
            BatchSent: lambda event: self._batch_size.observe(event.size),
            RingObserved: lambda event: self._viewed.labels(event.ring).set(self._present()),
            Alarm: lambda event: self._alarms.labels(event.event).inc(),
            JwksFetched: lambda event: self._jwks_fetch.labels(str(event.has_next).lower()).inc(),
            RequestAnswered: self._count_request,
            RequestsShed: lambda event: self._shed.inc(event.number),
            PluginFailed: lambda event: self._plugin_failures.labels(*event).inc(),
            DocumentFetched: lambda event: self._documents.labels(event.outcome).inc(),
            CountedAlone: lambda _: self._counted_alone.inc(),
            EventDelivered: lambda event: self._events.labels(*event).inc(),
        }

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

    def _count_request(self, event: RequestAnswered) -> None:
        endpoint, outcome, seconds = event
        answered, took, sums = self._answered, self._took, self._took_sum
        kind, bound = (endpoint, outcome), (endpoint, _BOUNDS[bisect_left(_BOUNDS, seconds)])
        answered[kind] = answered.get(kind, 0) + 1
        took[bound] = took.get(bound, 0) + 1
        sums[endpoint] = sums.get(endpoint, 0.0) + seconds
        if not self._adds_up:
            self.flush()

    def _count_signature(self, event: Signed) -> None:
        backend, alg, result, seconds = event
        self._sign_seconds.labels(backend, alg, result).observe(seconds)

    def _keep_vault_token(self, event: VaultTokenHeld) -> None:
        vault, left, full = event
        if full <= 0:
            left = full = math.inf
        self._token_expiry.labels(vault).set(self._present() + left)
        self._token_full_ttl.labels(vault).set(full)


# The exporter adds the help text; the one in the files, which repeats for each value, is not used.
_HELP = "see the exporter"


def _counter(family: Family, registry: CollectorRegistry) -> Counter:
    return Counter(family.name, _HELP, family.labels, registry=registry)


def _gauge(family: Family, registry: CollectorRegistry) -> Gauge:
    mode = family.mode
    return Gauge(family.name, _HELP, family.labels, registry=registry, multiprocess_mode=mode)


def _histogram(family: Family, registry: CollectorRegistry) -> Histogram:
    return Histogram(family.name, _HELP, family.labels, registry=registry, buckets=family.buckets)
