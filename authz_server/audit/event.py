"""The base class of all audit events."""

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base class of all events.

    Attributes:
        request_id: the request id, also in the response; empty outside a request.
        message_id: the sender's own message id, if any.
        source_address: the sender's IP address, as found behind the trusted proxies.
    """

    request_id: str = ""
    message_id: str = ""
    source_address: str = ""

    @property
    def name(self) -> str:
        """The event's name, for example ``token.issued``."""
        return str(self.__struct_config__.tag)
