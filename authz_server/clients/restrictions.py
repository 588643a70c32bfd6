"""Limits of a client in place, time and number, and the claims that tie it to a message key."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from authz_server.clients.message_keys import MessageKey
from authz_server.clients.networks import AllowedNetworks
from authz_server.clients.payment_windows import PaymentWindows
from authz_server.clients.properties import NO_PROPERTIES, ClientProperties
from authz_server.clients.token_budgets import TokenBudget

#: Claims of a token: the ``sender_id`` of its client's G2P Connect messages, and their key as the
#: members of ``cnf`` (RFC 7800, 3.1) name a key. A key in ``cnf`` itself would be one by which the
#: token's sender is to prove possession.
SENDER_ID_CLAIM = "sender_id"
MESSAGE_KEY_CLAIM = "message_cnf"
MESSAGE_CLAIMS = (SENDER_ID_CLAIM, MESSAGE_KEY_CLAIM)


class Restrictions(msgspec.Struct, frozen=True, kw_only=True):
    """The restrictions of one client.

    Attributes:
        networks: the networks that its requests may come from; None: any.
        windows: the times at which it may obtain tokens; None: any.
        expires_at: the time at which it expires, in seconds since 1970 UTC.
        budgets: the numbers of tokens that it may obtain.
        claims: claims of its tokens.
    """

    networks: AllowedNetworks | None
    windows: PaymentWindows | None
    expires_at: float
    budgets: tuple[TokenBudget, ...]
    claims: Mapping[str, object]

    def admits(self, address: str) -> bool:
        """Return whether a request may come from the IP address."""
        return self.networks is None or self.networks.contains(address)

    def is_open(self, now: float) -> bool:
        """Return whether ``now`` (seconds since 1970 UTC) is in a payment window."""
        return self.windows is None or self.windows.closes_at(now) > now


def restrictions_of(properties: ClientProperties, expires_at: float) -> Restrictions | None:
    """Return the restrictions of a client; None if it has none.

    Args:
        properties: the client's.
        expires_at: the time at which it expires, in seconds since 1970 UTC; infinity for none.
    """
    if properties is NO_PROPERTIES and expires_at == float("inf"):
        return None
    found = Restrictions(
        networks=_networks(properties.allowed_networks) if properties.allowed_networks else None,
        windows=PaymentWindows(properties.payment_windows) if properties.payment_windows else None,
        expires_at=expires_at,
        budgets=properties.token_budget,
        claims=_claims(properties.sender_id, properties.message_key_thumbprint),
    )
    return found if found != _NO_RESTRICTIONS else None


_NO_RESTRICTIONS = Restrictions(
    networks=None, windows=None, expires_at=float("inf"), budgets=(), claims={}
)


@lru_cache(256)
def _networks(networks: Sequence[str]) -> AllowedNetworks:
    """Return the shared object of the same networks, which many clients may have."""
    return AllowedNetworks(networks)


def _claims(sender_id: str, key: MessageKey | None) -> Mapping[str, object]:
    claims: dict[str, object] = {SENDER_ID_CLAIM: sender_id} if sender_id else {}
    if key is not None:
        claims[MESSAGE_KEY_CLAIM] = msgspec.to_builtins(key)
    return claims
