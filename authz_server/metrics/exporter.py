"""Metrics exporter: sums over all processes, and values from the database."""

import math
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from sqlalchemy.exc import SQLAlchemyError

from authz_server import __version__
from authz_server.metrics import definitions as families
from authz_server.metrics.definitions import FAMILIES, RINGS, VAULT_TOKEN_EXPIRY
from authz_server.metrics.rings import Sample, sample_nodes, sample_rings
from authz_server.metrics.source import KnownBackends
from keys.errors import StoreUnavailable
from keys.store import KeyStore

_USED_BYTES = struct.Struct("i")


class MetricsPage(Collector):
    """Exports every metric of one server, over all its processes.

    Args:
        folder: the metrics files of the processes; see ``authz_server.metrics.files``.
        store: the rings, read at each scrape.
        clock: returns the present time, timezone-aware.
        further: yields further samples from the database for a time.
        certificate_ends: when the certificates of the listeners end, in seconds since 1970, by
            listener.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(
        self,
        folder: Path,
        store: KeyStore,
        clock: Callable[[], datetime],
        further: Callable[[datetime], Iterable[Sample]] = lambda _: (),
        *,
        certificate_ends: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._folder = folder
        self._store = store
        self._clock = clock
        self._further = further
        self._certificate_ends = certificate_ends
        self._lock = threading.Lock()

    def render(self, ready: Mapping[str, bool] = MappingProxyType({})) -> bytes:
        """Return the metrics in the Prometheus text format 0.0.4.

        Args:
            ready: whether each condition of readiness holds, by name.
        """
        registry = CollectorRegistry()
        registry.register(_Once(self.collect(ready)))
        return generate_latest(registry)

    def collect(self, ready: Mapping[str, bool] = MappingProxyType({})) -> list[Metric]:
        """Return the metrics that have samples, in the order of ``FAMILIES``."""
        counted = self._counted()
        _add(counted, Sample(families.BUILD_INFO, (__version__,), 1))
        for name, holds in ready.items():
            _add(counted, Sample(families.READY, (name,), int(holds)))
        for listener, end in self._certificate_ends.items():
            _add(counted, Sample(families.CERTIFICATE_END, (listener,), end))
        for sample in self._sample_store():
            _add(counted, sample)
        for sample in _zeros(counted):
            _add(counted, sample)
        shown = [family for family in FAMILIES if family.name in counted]
        for family in shown:
            counted[family.name].documentation = family.sentence
        return [counted[family.name] for family in shown]

    def known_backends(self) -> KnownBackends:
        """Return the states of the key backends as the processes last reported them."""
        counted = self._counted()
        answers = counted.get(families.BACKEND_UP.name)
        viewed = counted.get(families.VIEW_SUCCESS.name)
        return KnownBackends(
            down=_labels(answers, "backend", of_value=0),
            viewed_rings=_labels(viewed, "ring"),
            # Starts at 0 in every process that records metrics.
            reported=families.UNKNOWN_KID.name in counted,
        )

    def _counted(self) -> dict[str, Metric]:
        # A second thread would delete the same files, or read what the first one deletes.
        with self._lock:
            forget_ended_processes(self._folder)
            collector = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
            counted: list[Metric] = collector.collect()  # type: ignore[no-untyped-call]
        metrics = {_exposed_name(metric): metric for metric in counted}
        _make_histogram(metrics)
        if expiry := metrics.pop(VAULT_TOKEN_EXPIRY.name, None):
            now = self._clock().timestamp()
            for sample in expiry.samples:
                left = max(0.0, sample.value - now)
                labels = (sample.labels["vault"],)
                _add(metrics, Sample(families.VAULT_TOKEN_TTL, labels, left))
        return metrics

    def _sample_store(self) -> Iterator[Sample]:
        try:
            now = self._clock()
            rings, reports = self._store.load_rings(now), self._store.load_nodes()
            # Rings and reports carry the database's time. With a wrong local clock, even this
            # node's own report would look outdated.
            now += timedelta(seconds=self._store.clock_offset_seconds())
        except StoreUnavailable:
            yield Sample(families.STORE_UP, (), 0)
            return
        yield Sample(families.STORE_UP, (), 1)
        yield from sample_rings(rings, now)
        yield from sample_nodes(reports, now)
        with suppress(SQLAlchemyError):
            yield from self._further(now)


def _make_histogram(metrics: dict[str, Metric]) -> None:
    """Replace the counters of request times by one histogram."""
    times = metrics.pop(families.REQUEST_TIMES.name, None)
    sums = metrics.pop(families.REQUEST_TIMES_SUM.name, None)
    if times is None or sums is None:
        return
    family = families.REQUEST_SECONDS
    counted = {(each.labels["endpoint"], each.labels["le"]): each.value for each in times.samples}
    histogram = metrics[family.name] = Metric(family.name, family.sentence, family.kind)
    for each in sums.samples:
        endpoint, count = each.labels, 0.0
        for bound in map(floatToGoString, (*family.buckets, math.inf)):
            count += counted.get((endpoint["endpoint"], bound), 0.0)
            histogram.add_sample(f"{family.name}_bucket", endpoint | {"le": bound}, count)
        histogram.add_sample(f"{family.name}_count", endpoint, count)
        histogram.add_sample(f"{family.name}_sum", endpoint, each.value)


def _labels(metric: Metric | None, label: str, of_value: float | None = None) -> frozenset[str]:
    samples = metric.samples if metric else []
    return frozenset(sample.labels[label] for sample in samples if of_value in (None, sample.value))


class _Once(Collector):
    """Collector of metrics that were already collected; a registry would collect twice."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _exposed_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def _add(metrics: dict[str, Metric], sample: Sample) -> None:
    family = sample.family
    metric = metrics.get(family.name)
    if metric is None:
        name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
        metric = metrics[family.name] = Metric(name, family.sentence, family.kind)
    labels = dict(zip(family.labels, sample.labels, strict=True))
    metric.add_sample(family.name, labels, sample.value)


def _zeros(metrics: dict[str, Metric]) -> Iterator[Sample]:
    """Yield the declared zeros of values that were not counted."""
    epochs = metrics.get(families.LATEST_EPOCH.name)
    rings = tuple((sample.labels["ring"],) for sample in epochs.samples) if epochs else ()
    for family in (each for each in FAMILIES if each.zeros):
        zeros = rings if family.zeros == RINGS else family.zeros
        known = metrics[family.name].samples if family.name in metrics else []
        counted = {tuple(sample.labels[name] for name in family.labels) for sample in known}
        yield from (Sample(family, values, 0) for values in zeros if values not in counted)


def forget_ended_processes(folder: Path) -> None:
    """Delete the gauges of processes that ended, and release the space that they reserved.

    Their counters are kept: a counter never decreases.
    """
    for path in list(folder.glob("gauge_livemin_*.db")):
        process_id = int(path.stem.rpartition("_")[2])
        if _is_running(process_id):
            continue
        mark_process_dead(process_id, str(folder))  # type: ignore[no-untyped-call]
        for file in folder.glob(f"*_{process_id}.db"):
            with suppress(OSError), file.open("r+b") as counted:
                counted.truncate(max(8, *_USED_BYTES.unpack(counted.read(_USED_BYTES.size))))


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
