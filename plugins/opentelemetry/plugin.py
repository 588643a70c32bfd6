"""The plugin: records requests, events and log records, and exports them."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Counter, Histogram
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from authz_server.plugin_api import (
    AnsweredRequest,
    Event,
    ServerStarted,
    ServerStopped,
    current_request_id,
    hookimpl,
    redact,
)
from plugins.opentelemetry.collector import CollectorSession, limit_log
from plugins.opentelemetry.options import Options, read_options

#: The loggers whose records are sent; those of OpenTelemetry itself are not.
LOGGERS = ("authz_server", "keys")
#: How long a process that stops waits for what is left.
STOP_SECONDS = 2.0
#: Seconds, as in OpenTelemetry's conventions for HTTP, with finer ones below 5 ms.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SERVER_FAULT = 500
_SCOPE = "authz_server"
_PROPAGATOR = TraceContextTextMapPropagator()
_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)


class OpenTelemetry:
    """The plugin: exports in the background of each process that serves, once it has started."""

    def __init__(self) -> None:
        self._options = Options()
        self._telemetry: Telemetry | None = None

    @hookimpl
    def start(self, settings: Mapping[str, Any]) -> None:
        """Read the settings.

        Raises:
            ValueError: a value cannot be used.
        """
        self._options = read_options(settings)

    @hookimpl
    def event_happened(self, event: Event) -> None:
        """Count an event; start with the server and stop with it."""
        if isinstance(event, ServerStarted):
            self._telemetry = Telemetry(self._options, event)
        telemetry = self._telemetry
        if telemetry is None:
            return
        telemetry.count_event(event)
        if isinstance(event, ServerStopped):
            telemetry.stop()

    @hookimpl
    def request_answered(self, request: AnsweredRequest) -> None:
        """Record an answered request."""
        if self._telemetry is not None:
            self._telemetry.record_request(request)


class Telemetry:
    """The exporters of one process. Each has a queue of its own and a thread that empties it.

    Args:
        options: the settings.
        started: the start of the process.
    """

    def __init__(self, options: Options, started: ServerStarted) -> None:
        resource = Resource.create(
            {
                "service.name": options.service_name,
                "service.version": started.version,
                "service.instance.id": f"{started.process_id}",
                "authz_server.issuer": started.issuer,
            }
        )
        self._stops: list[Callable[[], object]] = []
        self._tracer: Tracer | None = None
        self._seconds: Histogram | None = None
        self._events: Counter | None = None
        exporter: dict[str, Any] = {
            "certificate_file": options.ca_file or None,
            "headers": dict(options.headers),
            "timeout": options.timeout_seconds,
        }
        limit_log()
        base = f"{options.endpoint.rstrip('/')}/v1"
        if "traces" in options.signals:
            to_traces = OTLPSpanExporter(f"{base}/traces", session=CollectorSession(), **exporter)
            self._add_traces(options, resource, to_traces)
        if "metrics" in options.signals:
            to_metrics = OTLPMetricExporter(
                f"{base}/metrics", session=CollectorSession(), **exporter
            )
            self._add_metrics(options, resource, to_metrics)
        if "logs" in options.signals:
            to_logs = OTLPLogExporter(f"{base}/logs", session=CollectorSession(), **exporter)
            self._add_logs(options, resource, to_logs)

    def _add_traces(self, options: Options, resource: Resource, exporter: OTLPSpanExporter) -> None:
        sampler = ParentBased(TraceIdRatioBased(options.sample_ratio))
        provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=options.queue_size,
                schedule_delay_millis=options.interval_seconds * 1_000,
                max_export_batch_size=min(512, options.queue_size),
            )
        )
        self._tracer = provider.get_tracer(_SCOPE)
        self._stops.append(provider.shutdown)

    def _add_metrics(
        self, options: Options, resource: Resource, exporter: OTLPMetricExporter
    ) -> None:
        reader = PeriodicExportingMetricReader(
            exporter,
            export_interval_millis=options.interval_seconds * 1_000,
            export_timeout_millis=options.timeout_seconds * 1_000,
        )
        provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = provider.get_meter(_SCOPE)
        self._seconds = meter.create_histogram(
            "http.server.request.duration",
            unit="s",
            description="Duration of requests to protocol endpoints.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._events = meter.create_counter(
            "authz_server.events", unit="{event}", description="Audit events by name."
        )
        self._stops.append(provider.shutdown)

    def _add_logs(self, options: Options, resource: Resource, exporter: OTLPLogExporter) -> None:
        provider = LoggerProvider(resource, shutdown_on_exit=False)
        provider.add_log_record_processor(
            BatchLogRecordProcessor(
                exporter,
                max_queue_size=options.queue_size,
                schedule_delay_millis=options.interval_seconds * 1_000,
                max_export_batch_size=min(512, options.queue_size),
            )
        )
        handler = _LogHandler(provider)
        for name in LOGGERS:
            logging.getLogger(name).addHandler(handler)
        self._stops += [handler.detach, provider.shutdown]

    def record_request(self, request: AnsweredRequest) -> None:
        """Add the span of a request, below that of its sender, and its duration."""
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "http.route": request.path,
            "http.response.status_code": request.status,
            "authz_server.outcome": request.outcome,
        }
        if self._seconds is not None:
            self._seconds.record(request.seconds, attributes)
        if self._tracer is None:
            return
        began = int(request.began_at * 1_000_000_000)
        carrier = {"traceparent": request.traceparent, "tracestate": request.tracestate}
        span = self._tracer.start_span(
            f"POST {request.path}",
            _PROPAGATOR.extract({name: value for name, value in carrier.items() if value}),
            kind=SpanKind.SERVER,
            start_time=began,
            attributes=attributes
            | {
                "client.address": request.source_address,
                "authz_server.client_id": request.client_id,
                "authz_server.request_id": request.request_id,
            },
        )
        if request.status >= _SERVER_FAULT:
            span.set_status(Status(StatusCode.ERROR, request.outcome))
        if span.is_recording():
            self._record_waits(request, span, began)
        span.end(began + int(request.seconds * 1_000_000_000))

    def _record_waits(self, request: AnsweredRequest, span: Span, began: int) -> None:
        """Add a span for each wait of a request, below that of the request."""
        if self._tracer is None:
            return
        below = set_span_in_context(span)
        for wait in request.waits:
            started = began + int(wait.began_after * 1_000_000_000)
            child = self._tracer.start_span(f"wait {wait.cause}", below, start_time=started)
            child.end(started + int(wait.seconds * 1_000_000_000))

    def count_event(self, event: Event) -> None:
        """Count an audit event by its name."""
        if self._events is not None:
            self._events.add(getattr(event, "count", 1), {"event.name": event.name})

    def stop(self) -> None:
        """Send what is left, for a limited time; a collector that is absent delays no exit."""
        for stop in self._stops:
            thread = threading.Thread(target=stop, name="opentelemetry-stop", daemon=True)
            thread.start()
            thread.join(STOP_SECONDS / len(self._stops))


class _LogHandler(logging.Handler):
    """Sends log records, redacted as those of the log file."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._logger = provider.get_logger(_SCOPE)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; never raises."""
        try:
            attributes = {"logger": record.name, "authz_server.request_id": current_request_id()}
            if record.exc_info and record.exc_info[0] is not None:
                attributes["exception.type"] = record.exc_info[0].__name__
            severity = next(
                (found for level, found in _SEVERITIES if record.levelno >= level),
                SeverityNumber.DEBUG,
            )
            self._logger.emit(
                LogRecord(
                    timestamp=int(record.created * 1_000_000_000),
                    severity_number=severity,
                    severity_text=record.levelname,
                    body=redact(record.getMessage()),
                    attributes={name: value for name, value in attributes.items() if value},
                )
            )
        except Exception:  # noqa: BLE001 - as the standard library's handlers do
            self.handleError(record)

    def detach(self) -> None:
        """Receive no further records."""
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)
