"""The receivers of webhooks: their settings, and how a message is signed and sent."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from authz_server.plugin_api import (
    FetchError,
    KeysError,
    PluginServices,
    Secret,
    refer_to,
    require_authorities,
    require_url,
)
from plugins.webhooks.queue import Delivery

#: The ``typ`` of the token by which a key ring signs a message.
TOKEN_TYPE = "webhook+jwt"  # noqa: S105 - a media type, not a secret
_SUCCESSES = range(200, 300)
_GONE = 410
#: The receiver takes other events (RFC 9110, 15.5).
_OF_EVENT = frozenset({400, 413, 415, 422})
_KEYS = frozenset({"url", "events", "secret", "signing_ring", "ca_file"})


class GoneError(Exception):
    """The receiver answered that it does not exist any more (RFC 9110, 15.5.11)."""


class EventRefusedError(FetchError):
    """The receiver did not accept this event; it may accept others."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """One receiver.

    Attributes:
        name: its name in the settings.
        url: its address.
        events: patterns of the names of its events.
        secret: the key of the HMAC; empty: a key ring signs.
        signing_ring: the ring; empty: the default one.
        ca_file: the only authorities that are trusted.
    """

    name: str
    url: str
    events: tuple[str, ...]
    secret: bytes = field(default=b"", repr=False)
    signing_ring: str = ""
    ca_file: str = ""

    def wants(self, event: str) -> bool:
        """Return whether it receives events of this name."""
        return any(fnmatchcase(event, pattern) for pattern in self.events)

    def send(self, delivery: Delivery, services: PluginServices) -> None:
        """Send an event. A redirect is not followed, and counts as a failure.

        Raises:
            GoneError: the receiver wants no further events.
            EventRefusedError: it did not accept this one.
            FetchError: it did not accept the event.
            KeysError: no key can sign.
        """
        moment = int(time.time())
        headers = [
            "Content-Type: application/json",
            f"webhook-id: {delivery.message_id}",
            f"webhook-timestamp: {moment}",
            self._sign(delivery, moment, services),
        ]
        reply = services.post(self.url, delivery.body, headers, ca_file=self.ca_file)
        if reply.status == _GONE:
            raise GoneError("the answer has status 410")
        if reply.status in _OF_EVENT:
            raise EventRefusedError(f"the answer has status {reply.status}")
        if reply.status not in _SUCCESSES:
            raise reply.as_error()

    def _sign(self, delivery: Delivery, moment: int, services: PluginServices) -> str:
        if self.secret:
            signed = b"%b.%d.%b" % (delivery.message_id.encode(), moment, delivery.body)
            digest = base64.b64encode(hmac.digest(self.secret, signed, "sha256")).decode()
            return f"webhook-signature: v1,{digest}"
        claims = {
            "iss": services.issuer,
            "iat": moment,
            "jti": delivery.message_id,
            "body_sha256": hashlib.sha256(delivery.body).hexdigest(),
        }
        payload = json.dumps(claims).encode()
        return f"webhook-token: {services.sign(payload, TOKEN_TYPE, ring=self.signing_ring)}"


#: The errors of an attempt after which there is another one.
RETRIED = (FetchError, KeysError)


def read_receivers(tables: object) -> dict[str, Receiver]:
    """Return the receivers in the settings, by name.

    Raises:
        ValueError: a table cannot be used.
    """
    if not isinstance(tables, Mapping) or not tables:
        raise ValueError("receivers: there must be a table for each receiver")
    return {name: _read_receiver(name, table) for name, table in tables.items()}


def _read_receiver(name: str, table: object) -> Receiver:
    where = f"receivers.{name}"
    if not isinstance(table, Mapping) or not table.keys() <= _KEYS:
        raise ValueError(f"{where}: use {', '.join(sorted(_KEYS))}")
    url, events, secret = table.get("url"), table.get("events"), table.get("secret")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise ValueError(f"{where}.url: use an https address")
    require_url(f"{where}.url", url)
    if not isinstance(events, list) or not events or not all(isinstance(e, str) for e in events):
        raise ValueError(f"{where}.events: list names of events, such as client.*")
    ring, ca_file = table.get("signing_ring", ""), table.get("ca_file", "")
    if not isinstance(ring, str) or not isinstance(ca_file, str):
        raise ValueError(f"{where}: signing_ring and ca_file are texts")  # noqa: TRY004 - one error for every rule
    require_authorities(f"{where}.ca_file", ca_file)
    if ring:
        refer_to("ring", f"{where}.signing_ring", ring)
    if "secret" in table and (not isinstance(secret, Secret) or ring):
        raise ValueError(f"{where}.secret: name a file or a variable, or a signing_ring instead")
    if "secret" not in table and "signing_ring" not in table:
        raise ValueError(f"{where}: set secret or signing_ring")
    key = _read_key(where, secret) if isinstance(secret, Secret) else b""
    return Receiver(name, url, tuple(events), key, ring, ca_file)


def _read_key(where: str, secret: Secret) -> bytes:
    key: Any = secret.reveal()
    if len(key) < 24:  # noqa: PLR2004 - as Standard Webhooks asks for
        raise ValueError(f"{where}.secret: use at least 24 bytes")
    return bytes(key)
