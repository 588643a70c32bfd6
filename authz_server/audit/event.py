"""The base class of all audit events."""

from typing import Any

import msgspec

#: The key in ``session.info`` of the records that the transaction stores.
STORED = "audit_records"


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


class Act(Event, frozen=True, kw_only=True):
    """Base class of the acts of administrators.

    Attributes:
        change: the id of the change that was approved, or done by break-glass; absent without one.
        approved_by: who approved it; absent without one.
        diff: the changed members with their values before and after; absent for a command.
    """

    change: str | msgspec.UnsetType = msgspec.UNSET
    approved_by: str | msgspec.UnsetType = msgspec.UNSET
    diff: Any = msgspec.UNSET
