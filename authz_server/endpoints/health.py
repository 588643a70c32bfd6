"""Health, metrics and the interface's description, on a listener of their own."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint

from authz_server.endpoints.answers import Answer, new_request_id, private_answer, private_bytes
from authz_server.observation import MetricsSource

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
        checks: by name, what must work for the server to be ready; each raises when it does not.
        description: the OpenAPI document.
        degradations: returns what does not work though the server is of use without it.
        metrics: the page of metrics; without it there is none.
    """
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health/live")
    def live() -> Answer:
        return private_answer({"status": "live"}, new_request_id())

    @blueprint.get("/health/ready")
    def ready() -> Answer:
        failed = [name for name, check in checks.items() if not _passes(name, check)]
        if failed:
            body: dict[str, Any] = {"status": "not ready", "failed": failed}
            return private_answer(body, new_request_id(), status=503)
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
            return private_bytes(metrics.render(), metrics.content_type, new_request_id())

    return blueprint


def _passes(name: str, check: Check) -> bool:
    try:
        check()
    except Exception as fault:  # noqa: BLE001 - whatever it is, the server is not ready
        logger.warning("not ready: %s: %s", name, type(fault).__name__)
        return False
    return True
