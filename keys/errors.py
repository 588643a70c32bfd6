"""Everything that can go wrong with a signing key, named once."""


class KeysError(Exception):
    """Base of every error that this package raises on purpose."""


class BackendError(KeysError):
    """A key backend did not do what was asked; always one of the four classes below."""


class BackendUnavailable(BackendError):  # noqa: N818 - the four classes are named in the design
    """The backend cannot be reached at the moment; the same call may succeed later.

    Args:
        message: What happened, for the operator.
        retry_after: Whole seconds after which trying again makes sense.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BackendDenied(BackendError):  # noqa: N818 - likewise
    """The backend was reached and refused: credentials, policy, or a power it does not have."""


class VersionUnusable(BackendError):  # noqa: N818 - likewise
    """The version asked for is not held, is fenced, or is of another algorithm."""


class BackendBroken(BackendError):  # noqa: N818 - likewise
    """The backend contradicts what is published or was stored: an alarm, never a retry."""


class StoreUnavailable(KeysError):  # noqa: N818 - likewise
    """The key ring's tables cannot be read or written at the moment."""


class NoActiveKeyError(KeysError):
    """The ring has no key that may sign now."""


class LifetimeExceededError(KeysError):
    """A token was to live longer than its ring allows, so maybe longer than its key."""


class TokenTooLargeError(KeysError):
    """The token to be signed would be larger than what verification accepts."""


class TokenRefusedError(KeysError):
    """Something is wrong with a presented token.

    Args:
        reason: A fixed phrase for the operator's log, without any part of the token.
        signature_checked: Whether the cost of verifying a signature was paid.
    """

    def __init__(self, reason: str, *, signature_checked: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.signature_checked = signature_checked


class InvariantError(KeysError):
    """A change would break a rule of the key lifecycle.

    Args:
        number: The rule's number in the documentation.
        message: Which key, and how.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"invariant {number}: {message}")
        self.number = number


class ClockOffError(KeysError):
    """This machine's clock differs too much from the store's: no ring is changed from here."""


class OrderRefusedError(KeysError):
    """What an operator asked for cannot be done in the ring's present state."""
