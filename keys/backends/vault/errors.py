"""Maps replies of a Vault to backend errors.

The text of a reply is never parsed: Vault and OpenBao word theirs differently, and change them.
"""

from collections.abc import Mapping
from typing import Any

from keys.backends.vault.http import RETRY_AFTER_SECONDS, VaultReply
from keys.errors import BackendDenied, BackendError, BackendUnavailable

OK_STATUS = 200
FIRST_ERROR_STATUS = 400
REFUSED_STATUS = 400
DENIED_STATUSES = frozenset({401, 403})
NOT_FOUND_STATUS = 404
LONGEST_QUOTE = 200


def require_success(reply: VaultReply, what: str) -> Mapping[str, Any]:
    """Return the body of a reply.

    Args:
        reply: the reply.
        what: the action, for the message of an error, such as ``rotating the key``.

    Raises:
        BackendDenied: the Vault refuses the request.
        BackendUnavailable: the Vault failed.
    """
    if reply.status < FIRST_ERROR_STATUS:
        return reply.body
    raise _to_error(reply, what)


def is_not_held(reply: VaultReply) -> bool:
    """Return whether an engine answers that it has no such object.

    It gives no reason then. A path without an engine is answered 404 too, with a reason.
    """
    return reply.status == NOT_FOUND_STATUS and not reply.body.get("errors")


def data_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the data in the body of a reply, empty if there are none."""
    data = body.get("data")
    return data if isinstance(data, Mapping) else {}


def describe_errors(body: Mapping[str, Any]) -> str:
    """Return the beginning of the texts in an error reply, for the log."""
    errors = body.get("errors")
    texts = [str(text) for text in errors] if isinstance(errors, list) else []
    return " ".join("; ".join(texts).split())[:LONGEST_QUOTE] or "no reason given"


def server_error(what: str, detail: str) -> BackendUnavailable:
    """Return the error for a reply 500: a fault of the Vault's own."""
    return BackendUnavailable(
        f"{what}: the Vault failed ({detail}); if it fails at everything, look at its audit device",
        RETRY_AFTER_SECONDS,
    )


def _to_error(reply: VaultReply, what: str) -> BackendError:
    detail = describe_errors(reply.body)
    if reply.status in DENIED_STATUSES:
        return BackendDenied(f"{what}: denied")
    if reply.status == NOT_FOUND_STATUS:
        return BackendDenied(f"{what}: there is no such path ({detail})")
    if reply.status == REFUSED_STATUS:
        return BackendDenied(f"{what}: refused ({detail})")
    return server_error(what, detail)
