"""Send traces, metrics and logs by OTLP over HTTP to a collector of OpenTelemetry."""

from plugins.opentelemetry.plugin import OpenTelemetry

__all__ = ["OpenTelemetry"]
