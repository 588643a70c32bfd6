"""The health listener's endpoints: health, metrics and the OpenAPI document."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint

from authz_server.database.errors import describe_failure, find_sentence
from authz_server.endpoints.responses import Answer, new_request_id, private_answer, private_bytes
from authz_server.logs import redact
from authz_server.metrics.source import MetricsSource

logger = logging.getLogger(__name__)

Check = Callable[[], None]


def health_blueprint(
    checks: Mapping[str, Check],
    description: Callable[[], dict[str, Any]],
    *,
    degradations: Callable[[], list[str]] = list,
    metrics: MetricsSource | None = None,
) -> Blueprint:
    """Return ``/health/live``, ``/health/ready``, ``/openapi.json`` and ``/metrics``.

    Args:
        checks: by name, the conditions of readiness; each raises if it fails.
        description: returns the OpenAPI document.
        degradations: returns the failures that leave the server ready.
        metrics: renders ``/metrics``; without it the path does not exist.
    """
    blueprint = Blueprint("health", __name__)
    log = _ReadinessLog()

    @blueprint.get("/health/live")
    def live() -> Answer:
        return private_answer({"status": "live"}, new_request_id())

    def find_reasons() -> dict[str, str]:
        found = {name: _find_reason(check) for name, check in checks.items()}
        reasons = {name: reason for name, reason in found.items() if reason}
        log.note(reasons)
        return reasons

    @blueprint.get("/health/ready")
    def ready() -> Answer:
        reasons = find_reasons()
        if reasons:
            body: dict[str, Any] = {"status": "not ready", "failed": list(reasons)}
            return private_answer(body | {"reasons": reasons}, new_request_id(), status=503)
        degraded = degradations()
        body = {"status": "degraded" if degraded else "ready", "failed": []}
        if degraded:
            body["degraded"] = degraded
        return private_answer(body, new_request_id())

    @blueprint.get("/openapi.json")
    def openapi() -> Answer:
        return private_answer(description(), new_request_id())

    if metrics is not None:

        @blueprint.get("/metrics")
        def show_metrics() -> Answer:
            reasons = find_reasons()
            page = metrics.render({name: name not in reasons for name in checks})
            return private_bytes(page, metrics.content_type, new_request_id())

    return blueprint


def _find_reason(check: Check) -> str:
    """Return why a check fails, for a database as its driver reports it; empty if it passes."""
    try:
        check()
    except Exception as fault:  # noqa: BLE001 - the server is not ready, for any exception
        return redact(find_sentence(fault) or describe_failure(fault))
    return ""


class _ReadinessLog:
    """Logs each change of readiness once; not as a warning while the server starts."""

    def __init__(self) -> None:
        self._was_ready = False
        self._last: dict[str, str] = {}

    def note(self, reasons: dict[str, str]) -> None:
        """Log the reasons if they changed."""
        if reasons.keys() == self._last.keys() and (reasons or self._was_ready):
            return
        self._last = dict(reasons)
        if reasons:
            level = logging.WARNING if self._was_ready else logging.INFO
            listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            logger.log(level, "not ready: %s", listed)
        else:
            logger.info("ready")
            self._was_ready = True
