"""The interface of a client authentication method, which recognises and verifies credentials."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import msgspec

from authz_server.clients.cache import ClientEntry
from authz_server.clients.certificates import ClientCertificate


class AuthenticationRequest(NamedTuple):
    """The parts of a request that may hold credentials.

    Attributes:
        form: the body's parameters, each once, none of them empty.
        headers: the header fields by lower-case name.
        address: the client's IP address.
        certificate: the client's TLS certificate, from a source that the settings trust.
    """

    form: Mapping[str, str]
    headers: Mapping[str, str]
    address: str
    certificate: ClientCertificate | None = None

    @property
    def authorization(self) -> str | None:
        """The ``Authorization`` header; None where it is absent or empty."""
        return self.headers.get("authorization") or None


class Reading(NamedTuple):
    """One way to read the credentials of a request.

    Attributes:
        client_id: the id that it claims.
        proof: the proof of the id: a secret, an assertion or a certificate in DER.
    """

    client_id: str
    proof: bytes


class Credentials(NamedTuple):
    """The credentials that a method recognised in a request.

    Attributes:
        method: the method's name in metadata and audit records.
        readings: the ways to read them, the likeliest first; none if they cannot be read.
    """

    method: str
    readings: tuple[Reading, ...]


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The outcome of verifying one reading.

    Attributes:
        credential: the id of the client's secret, key or certificate that the proof matches; empty
            if it matches none.
        cause: the cause of a refusal in audit records; empty if the proof is right.
        further: a check that waits or takes long. It is awaited only if no reading of the request
            is accepted without one, and its verdict replaces this one.
        conclude: uses the proof up. It is awaited once the client is known to be enabled and
            registered for the method, and its verdict replaces this one.
        client: the client of a newer metadata document, with which the request continues; None: the
            registered client, as it is after `further`.
    """

    credential: str = ""
    cause: str = ""
    further: Callable[[], Awaitable["Verdict"]] | None = None
    conclude: Callable[[], Awaitable["Verdict"]] | None = None
    client: ClientEntry | None = None


class ClientAuthenticationMethod(ABC):
    """A method, or a family of methods, by which a client authenticates.

    A method is made once per server. Its calls run in the thread or event loop that answers
    requests, so that a check that waits belongs in :attr:`Verdict.further`.

    The authenticator finds the client, checks whether it is enabled and registered for the method,
    throttles failures and records the outcome. A method only verifies the proof.

    Attributes:
        NAMES: the names of the method in metadata and audit records.
        REGISTRATIONS: the values of ``authentication_method`` that permit the method, and which of
            :attr:`NAMES` each permits. A client is registered for one value.
        IS_KEYED: whether its credentials are a ``client_assertion`` or a certificate. The method is
            not asked about requests that have neither.
    """

    NAMES: ClassVar[tuple[str, ...]]
    REGISTRATIONS: ClassVar[Mapping[str, Sequence[str]]]
    IS_KEYED: ClassVar[bool] = False

    @abstractmethod
    def recognise(self, request: AuthenticationRequest) -> Credentials | None:
        """Return the credentials of this method in a request; None if there are none.

        Raises:
            OAuthError: ``several_authentication_methods``; the credentials contradict each other.
        """

    @abstractmethod
    def verify(self, reading: Reading, client: ClientEntry, address: str, now: float) -> Verdict:
        """Return whether the proof is the client's.

        For an unknown client id, ``client`` is a stand-in with the id ``""`` and no secrets, and
        the verdict is discarded. The method does the same work for it, for a disabled client and
        for a wrong proof, so that the cost of a refusal does not reveal its cause.

        Args:
            reading: one of those that :meth:`recognise` returned.
            client: the client of the id that it claims, or the stand-in.
            address: the sender's IP address.
            now: seconds since 1970 UTC.
        """

    def note_accepted(  # noqa: B027 - most methods remember nothing
        self, readings: Sequence[Reading], credential: str
    ) -> None:
        """Note that :attr:`Verdict.further` of the last reading authenticated its client.

        Args:
            readings: the verified readings of this request, the accepted one last.
            credential: the credential of the verdict.
        """
