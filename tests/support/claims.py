"""The claims of a JWT, read without a check."""

import base64
import json
from typing import Any


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims."""
    return _decoded(token.split(".")[1])


def header_of(token: str) -> dict[str, Any]:
    """Return the protected header."""
    return _decoded(token.partition(".")[0])


def _decoded(segment: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
