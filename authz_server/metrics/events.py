"""Events of a serving process that are counted and not recorded."""

from typing import NamedTuple


class RequestAnswered(NamedTuple):
    """A request to a protocol endpoint was answered.

    Attributes:
        endpoint: the endpoint's name.
        outcome: ``ok``, another outcome of the endpoint, or the error code.
        seconds: from the last byte of the request to the response.
    """

    endpoint: str
    outcome: str
    seconds: float


class RequestsShed(NamedTuple):
    """A number of requests were refused unread."""

    number: int


class CountedAlone(NamedTuple):
    """A failure or a token was counted by one process alone.

    The shared counts failed, or had no room for further ids and networks.
    """


class PluginFailed(NamedTuple):
    """A hook of a plugin, or a part that a plugin registered, failed.

    Attributes:
        plugin: the plugin or the part, by name.
        hook: the hook.
        failure: ``raised``, ``timed_out``, ``invalid`` for a result that cannot be used, or
            ``lost`` for a notification that was not made.
    """

    plugin: str
    hook: str
    failure: str


class DocumentFetched(NamedTuple):
    """A document of a client or an issuer was fetched, or could not be.

    Attributes:
        outcome: ``ok``, ``failed``, or ``refused`` for a URL or an address that is not permitted.
    """

    outcome: str


class EventDelivered(NamedTuple):
    """A security event was delivered to a resource server, or not.

    Attributes:
        delivery: ``push`` or ``poll``.
        outcome: ``delivered``, ``failed``, or ``undelivered`` if it waits for the operator.
    """

    delivery: str
    outcome: str


class JwksFetched(NamedTuple):
    """The JWKS was fetched.

    Attributes:
        has_next: whether it held the next key of every ring.
    """

    has_next: bool
