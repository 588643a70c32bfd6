"""``client_secret_basic`` and ``client_secret_post``: a secret that both sides know."""

import hmac
import os
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from authz_server.clients.authentication.imported_secrets import ImportedSecrets
from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Credentials,
    Reading,
    Verdict,
)
from authz_server.clients.cache import ClientCache, ClientEntry, SecretEntry
from authz_server.clients.secrets import SecretScheme
from authz_server.clients.validation import MAXIMUM_ID_CHARACTERS
from authz_server.errors import OAuthError
from authz_server.waiting import Lane, Step

#: Permits both methods that carry a secret.
CLIENT_SECRET = "client_secret"  # noqa: S105 - a method, not a secret
CLIENT_SECRET_BASIC = "client_secret_basic"  # noqa: S105 - the method's registered name
CLIENT_SECRET_POST = "client_secret_post"  # noqa: S105 - likewise
MAXIMUM_AUTHORIZATION_CHARACTERS = 8_192


class SharedSecret(ClientAuthenticationMethod):
    """Compares a secret with those of the client (RFC 6749, 2.3.1).

    Generated secrets are compared by digest. Imported secrets need a computation. While any client
    has one, every refused request takes it (``docs/decisions/0018-imported-secrets.md``).

    Args:
        directory: the clients in memory.
        secrets: the scheme of their secrets.
    """

    NAMES: ClassVar[tuple[str, ...]] = (CLIENT_SECRET_BASIC, CLIENT_SECRET_POST)
    #: The first one, the default, permits each of the others.
    REGISTRATIONS: ClassVar[Mapping[str, Sequence[str]]] = {
        CLIENT_SECRET: NAMES,
        CLIENT_SECRET_BASIC: (CLIENT_SECRET_BASIC,),
        CLIENT_SECRET_POST: (CLIENT_SECRET_POST,),
    }

    def __init__(self, directory: ClientCache, secrets: SecretScheme) -> None:
        self._directory = directory
        self._secrets = secrets
        self._imported = ImportedSecrets(secrets)
        # Compared if the client has no secret; no secret has this digest.
        self._no_secrets = (SecretEntry("", os.urandom(32), "", float("inf")),)

    def recognise(self, request: AuthenticationRequest) -> Credentials | None:
        """Return the secret in the Basic header or in the form.

        Raises:
            OAuthError: ``several_authentication_methods``: the two differ.
        """
        secret = request.form.get("client_secret")
        client_id = request.form.get("client_id")
        authorization = request.authorization
        if authorization is None:
            if client_id is None or secret is None:
                return None
            return Credentials(CLIENT_SECRET_POST, (Reading(client_id, secret.encode()),))
        readings = self._read_basic(authorization, client_id)
        if (
            client_id is not None
            and readings
            and all(client_id != each.client_id for each in readings)
        ):
            raise OAuthError(
                "several_authentication_methods",
                "client_id differs from Basic",
                client_id=client_id,
            )
        # Some clients send the same pair in both places, which is permitted.
        if secret is not None and Reading(client_id or "", secret.encode()) not in readings:
            claimed = client_id or (readings[0].client_id if readings else "")
            raise OAuthError("several_authentication_methods", client_id=claimed)
        if not readings and not _is_basic(authorization):
            return None
        if secret is not None and self._is_registered_for_post(client_id or ""):
            return Credentials(CLIENT_SECRET_POST, readings)
        return Credentials(CLIENT_SECRET_BASIC, readings)

    def verify(self, reading: Reading, client: ClientEntry, address: str, now: float) -> Verdict:
        """Compare digests; if any client has an imported secret, return a further check."""
        digest = self._secrets.digest(reading.proof)
        found = self._find_secret(client, digest)
        further = None
        if self._directory.holds_imported_secrets:
            further = partial(self._compute, reading, found, address, now)
        return _verdict(found, now, further)

    def note_accepted(self, readings: Sequence[Reading], credential: str) -> None:
        """Remember a proven imported secret, and forget the outcomes of the request.

        Once the client is disabled, each reading costs its computation again.
        """
        digests = [self._secrets.digest(reading.proof) for reading in readings]
        self._imported.note_proven(credential, digests[-1])
        for reading, digest in zip(readings, digests, strict=True):
            self._imported.forget(reading.client_id, digest)

    def _read_basic(self, authorization: str, claimed: str | None) -> tuple[Reading, ...]:
        """Return the readings of a Basic header: form-decoded (RFC 6749, 2.3.1), then undecoded.

        Some clients encode and some do not. A pair is decoded as a whole or not at all.

        Args:
            authorization: the header.
            claimed: the id in the form, if any.
        """
        if not _is_basic(authorization) or len(authorization) > MAXIMUM_AUTHORIZATION_CHARACTERS:
            return ()
        try:
            pair = b64decode(authorization[5:].strip(" "), validate=True)
            user, _, secret = pair.partition(b":")
            if not user or not secret:
                return ()
            if b":" in secret or not secret.isascii():
                raw = self._split_undecoded(pair, claimed)
            else:
                raw = Reading(user.decode(), secret)
            if b"%" not in pair and b"+" not in pair:
                return (raw,)
            plain = _reading(_form_decoded(user), _form_decoded(secret))
        # Neither base64 nor an id in UTF-8.
        except ValueError:
            return ()
        return (plain, raw) if plain.proof else (raw,)

    def _split_undecoded(self, pair: bytes, claimed: str | None) -> Reading:
        """Split at the first colon (RFC 7617, 2), or after the longest registered id.

        Few clients encode an id, so that one with a colon arrives as it is. There is one reading in
        either case, so that a registered id costs no more than an unknown one. An id in the form
        decides: otherwise the refusal of two different ids would show which are registered.
        """
        if claimed and pair.startswith(f"{claimed}:".encode()):
            length = len(claimed.encode())
            if pair[length + 1 :]:
                return _reading(pair[:length], pair[length + 1 :])
        first = pair.index(b":")
        end = pair.rfind(b":", first + 1, MAXIMUM_ID_CHARACTERS + 1)
        # Ids are ASCII: no other byte makes one.
        while end > 0 and not self._directory.is_registered(pair[:end].decode("latin-1")):
            end = pair.rfind(b":", first + 1, end)
        length = end if end > 0 and pair[end + 1 :] else first
        return _reading(pair[:length], pair[length + 1 :])

    def _is_registered_for_post(self, client_id: str) -> bool:
        client = self._directory.find(client_id)
        return client is not None and client.authentication_method == CLIENT_SECRET_POST

    def _find_secret(self, client: ClientEntry | None, digest: bytes) -> SecretEntry | None:
        """Return the secret that matches a digest without a computation."""
        found = None
        for secret in (client.secrets if client is not None else ()) or self._no_secrets:
            if secret.imported_record:
                fits = self._imported.is_proven(secret.id, digest)
            else:
                fits = hmac.compare_digest(secret.digest, digest)
            if fits and (found is None or secret.expires_at > found.expires_at):
                found = secret
        return found

    async def _compute(
        self, reading: Reading, found: SecretEntry | None, address: str, now: float
    ) -> Verdict:
        """Return the verdict of a computation, which is made if its outcome is not remembered."""
        imported = self._imported_of(reading.client_id)
        digest = self._secrets.digest(reading.proof)
        outcome = self._imported.find_outcome(reading.client_id, digest, imported)
        if outcome is None:
            compute = partial(self._compute_in_slot, reading, found, address, now)
            return await Step(Lane.SECRETS, compute)
        return _verdict(_by_id(imported, outcome) or found, now)

    def _compute_in_slot(
        self, reading: Reading, found: SecretEntry | None, address: str, now: float
    ) -> Verdict:
        client_id, proof = reading
        digest = self._secrets.digest(proof)
        with self._imported.slot(client_id, address):
            # Another request may have computed or proven the same while this one waited.
            imported = self._imported_of(client_id)
            outcome = self._imported.find_outcome(client_id, digest, imported)
            if outcome is None and found is None:
                proven = self._find_secret(self._directory.find(client_id), digest)
                if proven is not None:
                    return _verdict(proven, now)
            if outcome is None:
                outcome = self._imported.compare(client_id, proof, imported)
            return _verdict(_by_id(imported, outcome) or found, now)

    def _imported_of(self, client_id: str) -> list[SecretEntry]:
        client = self._directory.find(client_id)
        secrets = client.secrets if client is not None else ()
        return [secret for secret in secrets if secret.imported_record]


def _verdict(
    found: SecretEntry | None,
    now: float,
    further: Callable[[], Awaitable[Verdict]] | None = None,
) -> Verdict:
    if found is None:
        return Verdict("", "secret_wrong", further)
    return Verdict(found.id, "secret_expired" if now >= found.expires_at else "", further)


def _by_id(secrets: Iterable[SecretEntry], secret_id: str) -> SecretEntry | None:
    return next((secret for secret in secrets if secret.id == secret_id), None)


def _is_basic(authorization: str) -> bool:
    return authorization.partition(" ")[0].lower() == "basic"


def _reading(user: bytes, secret: bytes) -> Reading:
    """Return a reading, whose secret is in UTF-8 as registered ones are.

    RFC 7617, 2 leaves the encoding open, and many clients send ISO 8859-1.
    """
    if not secret.isascii():
        try:
            secret.decode()
        except UnicodeDecodeError:
            secret = secret.decode("latin-1").encode()
    return Reading(user.decode(), secret)


def _form_decoded(value: bytes) -> bytes:
    return unquote_to_bytes(value.replace(b"+", b" "))
