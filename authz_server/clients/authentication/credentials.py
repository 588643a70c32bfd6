"""What a request offers to prove who sends it, before anybody believes it."""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from authz_server.errors import OAuthError

#: Registers a party for a secret by either of the two methods that carry one.
CLIENT_SECRET = "client_secret"  # noqa: S105 - a method, not a secret
CLIENT_SECRET_BASIC = "client_secret_basic"  # noqa: S105 - the method's registered name
CLIENT_SECRET_POST = "client_secret_post"  # noqa: S105 - likewise
MAXIMUM_AUTHORIZATION_CHARACTERS = 8_192


class Offer(NamedTuple):
    """A client id and a secret, as one way of reading the request gives them."""

    client_id: str
    secret: bytes


class Credentials(NamedTuple):
    """The one authentication method that a request uses, and its possible readings.

    ``offers`` is empty when the request offers nothing that could authenticate.
    """

    method: str
    offers: tuple[Offer, ...]

    @property
    def client_id(self) -> str:
        """The id that the request claims; empty where it claims none."""
        return self.offers[0].client_id if self.offers else ""


_NOTHING = Credentials("", ())


def read_credentials(form: Mapping[str, str], authorization: str | None) -> Credentials:
    """Return what the request offers.

    Args:
        form: the body's parameters, each once; an empty one is absent already.
        authorization: the ``Authorization`` header, or None.

    Raises:
        OAuthError: ``several_authentication_methods`` (RFC 6749, 2.3).
    """
    secret = form.get("client_secret")
    client_id = form.get("client_id")
    has_assertion = "client_assertion" in form
    if has_assertion and (secret is not None or authorization is not None):
        raise OAuthError("several_authentication_methods", client_id=client_id or "")
    if authorization is None:
        if client_id is None or secret is None:
            return Credentials("", (Offer(client_id, b""),)) if client_id else _NOTHING
        return Credentials(CLIENT_SECRET_POST, (Offer(client_id, secret.encode()),))
    offers = _read_basic(authorization)
    if client_id is not None and offers and all(client_id != each.client_id for each in offers):
        raise OAuthError(
            "several_authentication_methods", "client_id differs from Basic", client_id=client_id
        )
    # Some clients send their one pair in both places: that is one method, used twice.
    if secret is not None and Offer(client_id or "", secret.encode()) not in offers:
        raise OAuthError("several_authentication_methods", client_id=client_id or "")
    return Credentials(CLIENT_SECRET_BASIC, offers)


def _read_basic(authorization: str) -> tuple[Offer, ...]:
    """Return the readings of a Basic header: form-decoded as RFC 6749, 2.3.1 says, then as it is.

    Some clients encode and some do not. A pair is decoded as a whole or not at all.
    """
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(authorization) > MAXIMUM_AUTHORIZATION_CHARACTERS:
        return ()
    try:
        decoded = b64decode(encoded.strip(" "), validate=True)
        user, colon, secret = decoded.partition(b":")
        raw = Offer(user.decode(), secret)
        if not colon or not user or not secret:
            return ()
        if b"%" not in decoded and b"+" not in decoded:
            return (raw,)
        plain = Offer(_form_decoded(user).decode(), _form_decoded(secret))
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ()
    return (plain, raw) if plain.secret else (raw,)


def _form_decoded(value: bytes) -> bytes:
    return unquote_to_bytes(value.replace(b"+", b" "))
