"""Health and the interface's description, on a listener of their own."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint

from authz_server.endpoints.answers import Answer, new_request_id, private_answer

logger = logging.getLogger(__name__)

Check = Callable[[], None]


def health_blueprint(
    checks: Mapping[str, Check], description: Callable[[], dict[str, Any]]
) -> Blueprint:
    """Return ``/health/live``, ``/health/ready`` and ``/openapi.json``.

    Args:
        checks: by name, what must work for the server to be ready; each raises when it does not.
        description: the OpenAPI document.
    """
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health/live")
    def live() -> Answer:
        return private_answer({"status": "live"}, new_request_id())

    @blueprint.get("/health/ready")
    def ready() -> Answer:
        failed = [name for name, check in checks.items() if not _passes(name, check)]
        body = {"status": "not ready" if failed else "ready", "failed": failed}
        return private_answer(body, new_request_id(), status=503 if failed else 200)

    @blueprint.get("/openapi.json")
    def openapi() -> Answer:
        return private_answer(description(), new_request_id())

    return blueprint


def _passes(name: str, check: Check) -> bool:
    try:
        check()
    except Exception as fault:  # noqa: BLE001 - whatever it is, the server is not ready
        logger.warning("not ready: %s: %s", name, type(fault).__name__)
        return False
    return True
