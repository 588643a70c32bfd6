"""The binding of a token to a key that its holder must prove (RFC 7800)."""

from collections.abc import Mapping

#: A member of ``cnf``: the thumbprint of a DPoP key (RFC 9449, 6.1).
JKT = "jkt"
BEARER = "Bearer"
DPOP = "DPoP"


def token_type_of(confirmation: Mapping[str, object] | None) -> str:
    """Return the ``token_type`` of a token with this ``cnf`` (RFC 9449, 5; RFC 8705, 3).

    A token that is bound to a certificate alone is still used by the Bearer scheme.
    """
    return DPOP if confirmation is not None and JKT in confirmation else BEARER
