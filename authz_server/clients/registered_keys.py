"""Rules of the keys with which a client registers (RFC 7591, 2), inline or by address."""

import json
from collections.abc import Mapping
from typing import Any

from authz_server.clients.outbound import UrlRefusedError, split_url
from authz_server.errors import InvalidChangeError
from authz_server.settings.trust import ASSERTION_ALGORITHMS
from keys.errors import KeysError

MAXIMUM_SET_BYTES = 32_768
#: The members of a registered key; others are not stored. RFC 8705, 2.2 uses the certificates.
_MEMBERS = frozenset(
    {"alg", "crv", "e", "key_ops", "kid", "kty", "n", "use", "x", "x5c", "x5t", "x5t#S256", "y"}
)

#: The methods by which a client signs assertions: whether the signature is made with a secret.
_OF_ASSERTIONS = {"private_key_jwt": False, "client_secret_jwt": True}


def check_jwks(value: object) -> dict[str, Any]:
    """Return a JWK set of 1 to 20 public keys, with the members that are stored.

    A key whose ``use`` is ``enc`` is one to which responses are encrypted (RFC 9701, 6).

    Raises:
        InvalidChangeError: it is anything else, is too large, or holds a key that is private,
            symmetric, weak or malformed, or an id twice.
    """
    # The libraries take a tenth of a second to import.
    from keys.jose.encryption import EncryptionKey, is_for_encryption  # noqa: PLC0415
    from keys.jose.foreign import parse_key_set  # noqa: PLC0415

    try:
        if len(json.dumps(value)) > MAXIMUM_SET_BYTES:
            raise InvalidChangeError(f"jwks: use at most {MAXIMUM_SET_BYTES} characters")
        parse_key_set(value)
        assert isinstance(value, dict)  # noqa: S101 - parse_key_set requires it
        for jwk in filter(is_for_encryption, value["keys"]):
            EncryptionKey(jwk)
    except KeysError as error:
        raise InvalidChangeError(f"jwks: {error}") from error
    except (TypeError, ValueError, RecursionError):
        raise InvalidChangeError("jwks: it is not JSON") from None
    kept = [{name: jwk[name] for name in jwk if name in _MEMBERS} for jwk in value["keys"]]
    return {"keys": kept}


def check_jwks_uri(value: object) -> str:
    """Return an https URL that the server may fetch; its host is checked at each fetch.

    Raises:
        InvalidChangeError: it is anything else.
    """
    try:
        split_url(value if isinstance(value, str) else "")
    except UrlRefusedError as error:
        raise InvalidChangeError(f"jwks_uri: {error}") from error
    return str(value)


def check_assertion_algorithm(value: object) -> str:
    """Return the name of an algorithm of assertions.

    Raises:
        InvalidChangeError: there is no such algorithm.
    """
    if not isinstance(value, str) or value not in ASSERTION_ALGORITHMS:
        names = ", ".join(ASSERTION_ALGORITHMS)
        raise InvalidChangeError(f"token_endpoint_auth_signing_alg: use one of {names}")
    return value


def check_key_management(value: object) -> str:
    """Return the name of an algorithm by which keys of encrypted responses are encrypted.

    Raises:
        InvalidChangeError: there is no such algorithm.
    """
    from keys.jose.encryption import KEY_MANAGEMENT  # noqa: PLC0415 - as above

    return _require_name("introspection_encrypted_response_alg", value, KEY_MANAGEMENT)


def check_content_encryption(value: object) -> str:
    """Return the name of an algorithm by which responses are encrypted.

    Raises:
        InvalidChangeError: there is no such algorithm.
    """
    from keys.jose.encryption import CONTENT_ENCRYPTION  # noqa: PLC0415 - as above

    return _require_name("introspection_encrypted_response_enc", value, CONTENT_ENCRYPTION)


def require_encryption_key(
    alg: str | None, enc: str | None, jwks: Mapping[str, Any] | None, jwks_uri: str | None
) -> None:
    """Raise InvalidChangeError if encrypted responses have no algorithm or no key (RFC 9701, 6)."""
    if enc is not None and alg is None:
        raise InvalidChangeError(
            "introspection_encrypted_response_enc: set introspection_encrypted_response_alg too"
        )
    if alg is None or jwks_uri is not None:
        return
    from keys.jose.encryption import EncryptionKey, is_for_encryption  # noqa: PLC0415 - as above

    keys = filter(is_for_encryption, (jwks or {}).get("keys", ()))
    if not any(alg in EncryptionKey(jwk).algorithms for jwk in keys):
        raise InvalidChangeError(
            f"introspection_encrypted_response_alg: jwks has no key for {alg} with use enc"
        )


def _require_name(field: str, value: object, names: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in names:
        raise InvalidChangeError(f"{field}: use one of {', '.join(names)}")
    return value


def require_fitting_algorithm(method: str, properties: Mapping[str, Any]) -> None:
    """Require that a client of assertions can sign by the one algorithm that it is registered for.

    Keys at an address are not read.

    Args:
        method: its authentication method.
        properties: its stored properties, by name.

    Raises:
        InvalidChangeError: the algorithm is of another method, or no inline key fits it.
    """
    alg = properties.get("token_endpoint_auth_signing_alg")
    is_symmetric = _OF_ASSERTIONS.get(method)
    if alg is None or is_symmetric is None:
        return
    if alg.startswith("HS") != is_symmetric:
        raise InvalidChangeError(
            f"token_endpoint_auth_signing_alg: {alg} is not an algorithm of {method}"
        )
    jwks = properties.get("jwks")
    if is_symmetric or jwks is None:
        return
    from keys.jose.foreign import parse_key_set  # noqa: PLC0415 - as above

    try:
        available = parse_key_set(jwks).algorithms
    except KeysError as error:
        raise InvalidChangeError(f"jwks: {error}") from error
    if alg not in available:
        raise InvalidChangeError(
            f"jwks: no key signs by {alg}, the only algorithm of token_endpoint_auth_signing_alg"
        )


def require_one_key_source(jwks: object, jwks_uri: str | None) -> None:
    """Raise InvalidChangeError if both sources of keys are set (RFC 7591, 2)."""
    if jwks is not None and jwks_uri is not None:
        raise InvalidChangeError("jwks_uri: a client has either jwks or jwks_uri; remove the other")
