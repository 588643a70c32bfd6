"""Passkeys of local operators (WebAuthn Level 3)."""

import hmac
import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import webauthn
from sqlalchemy import select
from sqlalchemy.orm import Session
from webauthn.helpers import (
    base64url_to_bytes,
    parse_authentication_credential_json,
    parse_client_data_json,
)
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from authz_server.admin.people.refusals import LogInRefusedError
from authz_server.admin.people.sessions import Person
from authz_server.assembly import Clock
from authz_server.database.operator_sessions import OperatorPasskey
from authz_server.database.operators import Operator

#: The methods of a log-in with user verification (RFC 8176): a key, and a PIN or a biometric.
AMR = ("pop", "user", "mfa")
MAXIMUM_PASSKEYS = 20
_MAXIMUM_NAME_CHARACTERS = 100
_TRANSPORTS = {each.value for each in AuthenticatorTransport}


class Passkeys:
    """Registers passkeys and verifies log-ins with them.

    Args:
        url: the URL of the console, whose host is the relying party.
        clock: returns the present time.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        parts = urlsplit(url)
        self._relying_party = parts.hostname or ""
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._clock = clock

    def creation_options(
        self, operator: Operator, passkeys: Sequence[OperatorPasskey], challenge: bytes
    ) -> dict[str, Any]:
        """Return the options of ``navigator.credentials.create``, as JSON."""
        options = webauthn.generate_registration_options(
            rp_id=self._relying_party,
            rp_name="authz-server",
            user_id=_handle_of(operator.id),
            user_name=operator.name,
            challenge=challenge,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=each.credential_id) for each in passkeys
            ],
        )
        return _as_json(options)

    def request_options(self, challenge: bytes) -> dict[str, Any]:
        """Return the options of ``navigator.credentials.get`` for any passkey, as JSON."""
        options = webauthn.generate_authentication_options(
            rp_id=self._relying_party,
            challenge=challenge,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return _as_json(options)

    def register(
        self,
        transaction: Session,
        operator: Operator,
        credential: dict[str, Any],
        challenge: bytes,
        name: str,
    ) -> OperatorPasskey:
        """Add the passkey that a browser has made.

        Args:
            transaction: the transaction.
            operator: its operator.
            credential: the answer of the browser.
            challenge: the challenge of the options.
            name: the name that the operator gives it.

        Raises:
            LogInRefusedError: ``passkey_refused``.
        """
        try:
            verified = webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._relying_party,
                expected_origin=self._origin,
                require_user_verification=True,
            )
        except Exception as fault:  # the parsers raise whatever the bytes lead to
            raise _refused(fault, operator.name) from fault
        count = len(passkeys_of(transaction, operator.id))
        known = transaction.get(OperatorPasskey, verified.credential_id)
        if known is not None or count >= MAXIMUM_PASSKEYS:
            raise LogInRefusedError("passkey_refused", "known, or too many", operator.name)
        passkey = OperatorPasskey(
            credential_id=verified.credential_id,
            operator_id=operator.id,
            name=_clean(name) or f"{self._clock():%Y-%m-%d %H:%M}",
            public_key=verified.credential_public_key,
            sign_count=verified.sign_count,
            transports=_transports(credential),
            created_at=self._clock(),
            last_used_at=None,
        )
        transaction.add(passkey)
        return passkey

    def verify(
        self, transaction: Session, credential: dict[str, Any], challenge: bytes
    ) -> Operator:
        """Return the operator whose passkey has signed a challenge.

        Raises:
            LogInRefusedError: ``passkey_unknown``, ``passkey_refused`` or ``operator_disabled``.
        """
        try:
            parsed = parse_authentication_credential_json(credential)
        except Exception as fault:  # as above
            raise _refused(fault) from fault
        passkey = transaction.get(OperatorPasskey, parsed.raw_id, with_for_update=True)
        operator = None if passkey is None else transaction.get(Operator, passkey.operator_id)
        if passkey is None or operator is None:
            raise LogInRefusedError("passkey_unknown")
        try:
            verified = webauthn.verify_authentication_response(
                credential=parsed,
                expected_challenge=challenge,
                expected_rp_id=self._relying_party,
                expected_origin=self._origin,
                credential_public_key=passkey.public_key,
                credential_current_sign_count=passkey.sign_count,
                require_user_verification=True,
            )
        except Exception as fault:  # as above
            raise _refused(fault, operator.name) from fault
        handle = parsed.response.user_handle
        if handle is not None and not hmac.compare_digest(handle, _handle_of(operator.id)):
            raise LogInRefusedError("passkey_refused", "another user handle", operator.name)
        if not operator.enabled:
            raise LogInRefusedError("operator_disabled", who=operator.name)
        passkey.sign_count = verified.new_sign_count
        passkey.last_used_at = self._clock()
        return operator

    def person(self, operator: Operator) -> Person:
        """Return the person who has just used a passkey of an operator."""
        return Person(
            name=operator.name,
            method="passkey",
            operator_id=operator.id,
            amr=AMR,
            authenticated_at=self._clock(),
        )


def read_challenge(credential: dict[str, Any]) -> bytes:
    """Return the challenge that the answer of a browser claims to answer.

    Raises:
        LogInRefusedError: ``passkey_refused``: the answer is malformed.
    """
    try:
        client_data = base64url_to_bytes(credential["response"]["clientDataJSON"])
        return parse_client_data_json(client_data).challenge
    except Exception as fault:  # as above
        raise _refused(fault) from fault


def passkeys_of(session: Session, operator_id: str) -> Sequence[OperatorPasskey]:
    """Return the passkeys of an operator, oldest first."""
    query = select(OperatorPasskey).where(OperatorPasskey.operator_id == operator_id)
    return session.scalars(query.order_by(OperatorPasskey.created_at)).all()


def _handle_of(operator_id: str) -> bytes:
    # WebAuthn, 14.6.1: the handle must not show who the user is.
    return sha256(f"authz-server operator {operator_id}".encode()).digest()


def _as_json(options: Any) -> dict[str, Any]:  # noqa: ANN401 - one of the library's structs
    made: dict[str, Any] = json.loads(webauthn.options_to_json(options))
    return made


def _refused(fault: Exception, who: str = "") -> LogInRefusedError:
    return LogInRefusedError("passkey_refused", f"{type(fault).__name__}: {fault}", who)


def _transports(credential: dict[str, Any]) -> list[str]:
    response = credential.get("response")
    named = response.get("transports") if isinstance(response, dict) else None
    if not isinstance(named, list):
        return []
    return [each for each in named if isinstance(each, str) and each in _TRANSPORTS]


def _clean(name: str) -> str:
    return "".join(each for each in name if each.isprintable()).strip()[:_MAXIMUM_NAME_CHARACTERS]
