"""Turns what a Vault answers and what hvac raises into the four classes of this package.

No text of an answer is parsed: Vault and OpenBao word theirs differently, and change them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from keys.errors import BackendDenied, BackendError, BackendUnavailable, KeysError

try:
    import hvac.exceptions
except ImportError as error:
    raise KeysError(
        "a key backend in a Vault needs the library hvac: install requirements/run.txt "
        "(docs/operations.md, Install)"
    ) from error

#: What hvac raises for a path that holds nothing, and for a request that is refused as it stands
#: (a lost compare-and-set among them): to be caught inside ``vault_errors``.
VaultNotFound = hvac.exceptions.InvalidPath
VaultRefused = hvac.exceptions.InvalidRequest

#: When trying again makes sense if nothing better is known, in seconds.
RETRY_AFTER_SECONDS = 1
LONGEST_QUOTE = 200

#: The node is sealed, not initialised or not the one to ask: it did nothing.
NOT_SERVING_STATUSES = frozenset({307, 308, 412, 472, 473, 501, 503})
#: A proxy in front got no answer from the node, which may have done what was asked.
LOST_STATUSES = frozenset({502, 504})
#: The node has not heard yet of a login or a write at another: it did nothing, and will soon know.
LAGGING_STATUS = 412
THROTTLED_STATUS = 429
DENIED_STATUSES = frozenset({401, 403})
SERVER_ERROR_STATUS = 500

_MEANINGS = {
    307: "sends callers elsewhere",
    308: "sends callers elsewhere",
    412: "has not caught up with the others",
    472: "is a standby for disasters",
    473: "is a standby",
    501: "is not initialised",
    502: "is not reached by the proxy in front of it",
    503: "is sealed or not ready",
    504: "does not answer the proxy in front of it",
}


def describe_status(status: int) -> str:
    """Return what a node with that answer is doing, to follow its name."""
    return _MEANINGS.get(status, f"answers {status}")


def describe_errors(body: Mapping[str, Any]) -> str:
    """Return the beginning of the texts in an error answer, for the operator."""
    errors = body.get("errors")
    texts = [str(text) for text in errors] if isinstance(errors, list) else []
    return " ".join("; ".join(texts).split())[:LONGEST_QUOTE] or "no reason given"


def data_of(reply: object) -> Mapping[str, Any]:
    """Return the data of what hvac answered, empty if there are none."""
    data = reply.get("data") if isinstance(reply, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def server_error(what: str, detail: str) -> BackendUnavailable:
    """Return the error for an answer 500: a fault of the Vault's own."""
    return BackendUnavailable(
        f"{what}: the Vault failed ({detail}); if it fails at everything, look at its audit device",
        RETRY_AFTER_SECONDS,
    )


@contextmanager
def vault_errors(what: str) -> Iterator[None]:
    """Raise the package's own errors in place of hvac's; ``what`` says what was being done.

    Catch ``VaultNotFound`` or ``VaultRefused`` inside where they have a meaning of their own.
    """
    try:
        yield
    except hvac.exceptions.VaultError as error:
        raise translate(error, what) from error


def translate(error: hvac.exceptions.VaultError, what: str) -> BackendError:
    """Return the error of this package for one of hvac's."""
    detail = describe_errors({"errors": error.errors} if error.errors else {})
    if isinstance(error, hvac.exceptions.Forbidden | hvac.exceptions.Unauthorized):
        return BackendDenied(f"{what}: denied")
    if isinstance(error, VaultNotFound):
        return BackendDenied(f"{what}: there is no such path ({detail})")
    if isinstance(error, VaultRefused):
        return BackendDenied(f"{what}: refused ({detail})")
    if isinstance(error, hvac.exceptions.ParamValidationError):
        return BackendDenied(f"{what}: {error.args[0]}")
    return server_error(what, detail)
