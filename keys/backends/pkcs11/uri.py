"""The URI of a PKCS#11 token (RFC 7512), for a ring.

    pkcs11:token=NAME;object=LABEL?module-path=/path/module.so&pin-source=file:/path/pin

Path: ``token`` (required); ``serial``, ``manufacturer`` and ``model`` to select one of several
tokens; ``object``, the label of the ring's keys (default: the ring's name); ``type=private``.
Query: ``module-path`` and ``pin-source``, both required. A PIN in the URI (``pin-value``) is
refused.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from keys.errors import BackendDenied, KeysError

#: Leaves room for the version number and the suffixes of unfinished keys.
MAXIMUM_LABEL_CHARACTERS = 64
MAXIMUM_PIN_BYTES = 1024
_SCHEME = "pkcs11:"
_PATH = frozenset({"token", "serial", "manufacturer", "model", "object", "type"})
_QUERY = frozenset({"module-path", "pin-source"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLocation:
    """One token and its PIN.

    Attributes:
        module: the token's PKCS#11 module, a shared library.
        token: the token's label.
        serial: its serial number; None: any.
        manufacturer: its manufacturer; None: any.
        model: its model; None: any.
        pin_file: the file with the user's PIN.
    """

    module: Path
    token: str
    serial: str | None
    manufacturer: str | None
    model: str | None
    pin_file: Path

    def read_pin(self) -> str:
        """Return the PIN without trailing line breaks.

        Raises:
            BackendDenied: the file is missing, open to every account, empty, too long or not text.
        """
        try:
            status = self.pin_file.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAXIMUM_PIN_BYTES:
                raise BackendDenied(f"the PIN file {self.pin_file} is not a small regular file")
            if status.st_mode & stat.S_IRWXO:
                raise BackendDenied(
                    f"the PIN file {self.pin_file} is open to every account: chmod 600 it"
                )
            # Some editors write a byte order mark.
            pin = self.pin_file.read_bytes().decode("utf-8-sig").rstrip("\r\n")
        except OSError as error:
            raise BackendDenied(f"the PIN file {self.pin_file}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise BackendDenied(f"the PIN file {self.pin_file} is not UTF-8") from None
        if not pin:
            raise BackendDenied(f"the PIN file {self.pin_file} is empty")
        return pin


def parse_uri(uri: str) -> tuple[TokenLocation, str | None]:
    """Return the token that ``uri`` names, and the label of the ring's keys, if any.

    Raises:
        KeysError: it is not such a URI, lacks a part, or has a part that would be ignored. The
            message never repeats a PIN.
    """
    path, _, query = uri.removeprefix(_SCHEME).partition("?")
    if not uri.startswith(_SCHEME):
        raise KeysError("a PKCS#11 URI begins with 'pkcs11:'")
    named = _attributes(path, ";", _PATH)
    asked = _attributes(query, "&", _QUERY)
    for attribute, found in (("token", named), ("module-path", asked), ("pin-source", asked)):
        if not found.get(attribute):
            raise KeysError(f"a PKCS#11 URI needs {attribute}=")
    if named.get("type", "private") != "private":
        raise KeysError("a PKCS#11 URI names a private key or leaves type= out")
    location = TokenLocation(
        module=_absolute("module-path", asked["module-path"]),
        token=named["token"],
        serial=named.get("serial"),
        manufacturer=named.get("manufacturer"),
        model=named.get("model"),
        pin_file=_pin_file(asked["pin-source"]),
    )
    return location, _label(named.get("object"))


def _attributes(text: str, separator: str, known: frozenset[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise KeysError("a PIN does not belong in a URI: name a file with pin-source=file:")
        if name not in known or not equals or name in found:
            raise KeysError(f"a PKCS#11 URI cannot have {name!r} here, twice, or without a value")
        try:
            found[name] = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise KeysError(f"{name}= of a PKCS#11 URI is not UTF-8") from None
    return found


def _pin_file(source: str) -> Path:
    # RFC 7512, 2.4 also allows a command after "|", which is not supported.
    scheme, colon, rest = source.partition(":")
    if colon and scheme != "file":
        raise KeysError("pin-source= of a PKCS#11 URI is a file: pin-source=file:/path")
    return _absolute("pin-source", rest.removeprefix("//") if colon else source)


def _absolute(attribute: str, text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise KeysError(f"{attribute}= of a PKCS#11 URI is an absolute path")
    return Path(text)


def _label(label: str | None) -> str | None:
    if label is not None and not (0 < len(label) <= MAXIMUM_LABEL_CHARACTERS and "~" not in label):
        raise KeysError(
            f"object= of a PKCS#11 URI is a label of up to {MAXIMUM_LABEL_CHARACTERS} characters "
            "without ~"
        )
    return label
