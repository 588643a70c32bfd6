"""The interface of a client authentication method: recognise credentials, verify them."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import msgspec

from authz_server.clients.cache import ClientEntry


class AuthenticationRequest(NamedTuple):
    """The parts of a request that may hold credentials.

    Attributes:
        form: the body's parameters, each once, none of them empty.
        headers: the header fields by lower-case name.
        address: the client's IP address.
    """

    form: Mapping[str, str]
    headers: Mapping[str, str]
    address: str

    @property
    def authorization(self) -> str | None:
        """The ``Authorization`` header; None where it is absent or empty."""
        return self.headers.get("authorization") or None


class Reading(NamedTuple):
    """One way to read the credentials of a request.

    Attributes:
        client_id: the id that it claims.
        proof: what proves it: a secret, an assertion, a certificate in DER.
    """

    client_id: str
    proof: bytes


class Credentials(NamedTuple):
    """The credentials that a method recognised in a request.

    Attributes:
        method: the method's name, as the metadata and the audit record have it.
        readings: the ways to read them, the likeliest first; none where they cannot be read.
    """

    method: str
    readings: tuple[Reading, ...]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The outcome of verifying one reading.

    Attributes:
        credential: the id of the client's secret, key or certificate that the proof fits; empty
            where it fits none.
        cause: why the proof is refused, as the audit record names it; empty where it is right.
        further: a check that waits or takes long. It is awaited only where no reading of the
            request is accepted without one, and its verdict replaces this one.
    """

    credential: str = ""
    cause: str = ""
    further: Callable[[], Awaitable["Verdict"]] | None = None


class ClientAuthenticationMethod(ABC):
    """One way, or one family of ways, in which a client proves who it is.

    A method is made once per server. Its calls run in the thread or loop that answers requests:
    what waits belongs into :attr:`Verdict.further`.

    The authenticator looks the client up, checks whether it is enabled and registered for the
    method, slows failures down, and records the outcome. A method compares the proof alone.

    Attributes:
        NAMES: the names of the method in metadata and audit records.
        REGISTRATIONS: the values of ``authentication_method`` that permit the method, and which of
            :attr:`NAMES` each permits. A client is registered for one value.
    """

    NAMES: ClassVar[tuple[str, ...]]
    REGISTRATIONS: ClassVar[Mapping[str, Sequence[str]]]

    @abstractmethod
    def recognise(self, request: AuthenticationRequest) -> Credentials | None:
        """Return the credentials of this method in a request; None where there are none.

        Raises:
            OAuthError: ``several_authentication_methods`` where they contradict one another.
        """

    @abstractmethod
    def verify(self, reading: Reading, client: ClientEntry, address: str, now: float) -> Verdict:
        """Return whether the proof is the client's.

        A client id that does not exist comes with a stand-in: a client of the id ``""`` that has
        no secrets. Its verdict is discarded. The method does the same work for it, for a disabled
        client and for a wrong proof, so that the cost of a refusal does not show its cause.

        Args:
            reading: one of those that :meth:`recognise` returned.
            client: the client of the id that it claims, or the stand-in.
            address: the sender's IP address.
            now: seconds since 1970 UTC.
        """

    def note_accepted(  # noqa: B027 - most methods remember nothing
        self, readings: Sequence[Reading], credential: str
    ) -> None:
        """Learn that :attr:`Verdict.further` of the last reading authenticated its client.

        Args:
            readings: those that were verified for this request, the accepted one last.
            credential: as the verdict names it.
        """
