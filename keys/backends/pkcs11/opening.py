"""Open the PKCS#11 backend, whose library is optional."""

from keys.backend import KeyBackend
from keys.backends.pkcs11.uri import parse_uri
from keys.backends.registry import BackendContext
from keys.errors import BackendDenied, KeysError


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Return the backend for the token that ``uri`` names (``keys.backends.pkcs11.uri``).

    The first use connects to the token, so that it may be absent now.

    Raises:
        KeysError: the URI or the PIN file is invalid, or the module or the library is missing.
    """
    location, label = parse_uri(uri)
    if label is not None and not context.ring:
        raise KeysError("a PKCS#11 URI with object= needs the name of a ring")
    try:
        from keys.backends.pkcs11.backend import Pkcs11Backend  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise KeysError(
            f"keys on a PKCS#11 token need a library ({error}): install "
            "requirements/backends.txt (docs/operations.md, Install)"
        ) from error
    if not location.module.is_file():
        raise KeysError(f"there is no PKCS#11 module {location.module}")
    try:
        location.read_pin()
    except BackendDenied as error:
        raise KeysError(str(error)) from error
    labels = {} if label is None else {context.ring: label}
    return Pkcs11Backend(uri, location, labels, clock=context.clock, notify=context.notify)
