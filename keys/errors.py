"""Errors of signing keys, rings and backends."""


class KeysError(Exception):
    """Base class of every error that this package raises."""


class BackendError(KeysError):
    """A key backend failed; always one of the four subclasses."""


class BackendUnavailable(BackendError):  # noqa: N818 - the four classes are named in the design
    """The backend cannot be reached at present; the same call may succeed later.

    Args:
        message: the failure, for the operator.
        retry_after: whole seconds after which a retry makes sense.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BackendDenied(BackendError):  # noqa: N818 - likewise
    """The backend refused: credentials, policy, or an unsupported operation."""


class VersionUnusable(BackendError):  # noqa: N818 - likewise
    """The requested version is not held, is fenced, or is of another algorithm."""


class BackendBroken(BackendError):  # noqa: N818 - likewise
    """The backend contradicts what is published or stored: an alarm, never a retry."""


class StoreUnavailable(KeysError):  # noqa: N818 - likewise
    """The key rings' tables cannot be read or written at present."""


class NoActiveKeyError(KeysError):
    """The ring has no key that may sign now."""


class LifetimeExceededError(KeysError):
    """A token's lifetime would exceed that of its ring, and possibly that of its key."""


class TokenTooLargeError(KeysError):
    """The token to sign would exceed the size that verification accepts."""


class TokenRefusedError(KeysError):
    """A presented token is invalid.

    Args:
        reason: a fixed phrase for the operator's log, without any part of the token.
        signature_checked: whether a signature verification was spent.
    """

    def __init__(self, reason: str, *, signature_checked: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.signature_checked = signature_checked


class UnknownKeyError(TokenRefusedError):
    """A presented token names a key that this process does not accept.

    Args:
        kid: the key's id.
        payload: the payload of the token, which is not verified.
    """

    def __init__(self, kid: str, payload: bytes) -> None:
        super().__init__("unknown key")
        self.kid = kid
        self.payload = payload


class InvariantError(KeysError):
    """A change would break an invariant of the key lifecycle.

    Args:
        number: the invariant's number in the documentation.
        message: the key concerned, and how.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"invariant {number}: {message}")
        self.number = number


class ClockOffError(KeysError):
    """This machine's clock differs too much from the store's; it changes no ring."""


class OrderRefusedError(KeysError):
    """An order cannot be carried out in the ring's present state."""
