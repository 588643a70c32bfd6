"""Requests for signatures in transit's words, and its answers in JOSE's."""

from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256, sha384, sha512
from types import MappingProxyType
from typing import Any, NamedTuple

from keys.backend import TracedSignature
from keys.backends.vault.transit_key import KEY_TYPES
from keys.errors import BackendBroken
from keys.jose.algorithms import ALGORITHMS, get_algorithm

_DIGESTS: Mapping[str, Callable[[bytes], Any]] = MappingProxyType(
    {"sha256": sha256, "sha384": sha384, "sha512": sha512}
)
_NAMES = {"sha256": "sha2-256", "sha384": "sha2-384", "sha512": "sha2-512"}
#: Without these, transit signs with the longest salt that fits, which no JOSE library accepts.
_PSS = {"signature_algorithm": "pss", "salt_length": "hash"}
_PKCS1 = {"signature_algorithm": "pkcs1v15"}
_JWS = {"marshaling_algorithm": "jws"}


class ItemError(NamedTuple):
    """Why transit did not sign one input, in its own words."""

    text: str


def signing_request(ref: str, alg: str, inputs: Sequence[bytes]) -> dict[str, Any]:
    """Return the body of a call that signs each input with exactly the version ``ref``.

    Where the algorithm begins with a digest, the digest is made here and the input stays here.
    """
    algorithm = get_algorithm(alg)
    body: dict[str, Any] = {"key_version": int(ref)}
    if algorithm.hash_name is None:
        body["batch_input"] = [{"input": b64encode(data).decode()} for data in inputs]
        return body
    digest = _DIGESTS[algorithm.hash_name]
    body["batch_input"] = [{"input": b64encode(digest(data).digest()).decode()} for data in inputs]
    body |= {"prehashed": True, "hash_algorithm": _NAMES[algorithm.hash_name]}
    if algorithm.kty == "EC":
        return body | _JWS
    return body | (_PSS if alg.startswith("PS") else _PKCS1)


def read_signatures(
    reply: Mapping[str, Any], ref: str, alg: str, count: int
) -> list[TracedSignature | ItemError]:
    """Return for each of ``count`` inputs its signature in JOSE's form, or why there is none.

    Raises:
        BackendBroken: The answer is not one to what was asked, or names another version.
    """
    try:
        results = reply["data"]["batch_results"]
        request_id = str(reply["request_id"])
        if len(results) != count:
            raise BackendBroken(f"the Vault signed {len(results)} inputs of {count}")
        return [_read_item(item, ref, alg, request_id) for item in results]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BackendBroken(f"the Vault's signatures cannot be read: {error!r}") from error


def _read_item(
    item: Mapping[str, Any], ref: str, alg: str, request_id: str
) -> TracedSignature | ItemError:
    if item.get("error"):
        return ItemError(str(item["error"]))
    _, version, encoded = item["signature"].split(":", 2)
    if version != f"v{ref}":
        raise BackendBroken(f"version {ref} was to sign, {version} did")
    if ALGORITHMS[alg].kty == "EC":
        signature = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    else:
        signature = b64decode(encoded, validate=True)
    return TracedSignature(signature, request_id)


def fits(alg: str, kind: str) -> bool:
    """Tell whether a transit key of type ``kind`` signs with ``alg``."""
    return kind in KEY_TYPES.get(alg, ())
