"""The interface of a type of authorization details (RFC 9396, 2)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple


class Window(NamedTuple):
    """The time in which a detail permits anything, in seconds since 1970; 0: no such limit."""

    not_before: int = 0
    not_after: int = 0


ALWAYS = Window()


class AuthorizationDetailsType(ABC):
    """A type of authorization details. One object is made for each server.

    The members ``type`` and ``locations`` are the server's (RFC 9396, 2.2). A type is called
    with the other members of a detail, in the thread or event loop that answers requests.

    Attributes:
        TYPE: the value of ``type``.
        SCOPES: the canonical names of the scopes whose use the type limits. Their resource servers
            are those that its details are for.
    """

    TYPE: ClassVar[str]
    SCOPES: ClassVar[tuple[str, ...]]

    @abstractmethod
    def check_grant(self, grant: Mapping[str, Any]) -> None:
        """Check a grant that an operator gives to a client.

        Raises:
            ValueError: it is malformed; the text is for the operator.
        """

    @abstractmethod
    def find_granted(
        self, detail: Mapping[str, Any], grant: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the members of the detail as granted; None if the grant does not cover them.

        Members that the request leaves out may be set to those of the grant (RFC 9396, 7.1).

        Args:
            detail: the members in the request; nothing about them is known.
            grant: a grant that :meth:`check_grant` accepted.

        Raises:
            ValueError: the detail has an unknown member, lacks one, or one is malformed; the text
                is for the audit record.
        """

    def window(self, granted: Mapping[str, Any]) -> Window:
        """Return the time in which a granted detail permits anything."""
        del granted
        return ALWAYS
