"""Sources of settings: the TOML file, files with secrets, and environment variables."""

import base64
import binascii
import codecs
import errno
import os
import pwd
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from authz_server.settings.constraints import (
    Branch,
    RuleError,
    Secret,
    SettingsError,
    locate_document,
    refuse,
)
from keys.private_files import find_exposure

AnyBranch = TypeVar("AnyBranch", bound=Branch)

_MAXIMUM_SECRET_BYTES = 65_536
#: The ends of the names of settings that are paths.
_FILES = ("_file", "_directory", "tls_certificate", "tls_private_key")
#: The deepest nesting of tables and lists, far above that of any plugin's settings.
_MAXIMUM_DEPTH = 100
_RESTORED = {
    "clients.secret_pepper": "Restore it from the backup: a new pepper ends every client secret.",
    "keys.key_encryption_key": "Restore it from the backup: a new key opens no key of a ring.",
}
_PART = re.compile(r"'([^']*)'")
_TUPLE = re.compile(r"\('[^)]*',?\)")
_HEXADECIMAL_KEY = re.compile(rb"[0-9A-Fa-f]{64}")
_BASE64URL_KEY = re.compile(rb"[A-Za-z0-9_-]{43}=?")


def read_document(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        SettingsError: the file cannot be read, or is not TOML in UTF-8.
    """
    try:
        # Some editors write a byte order mark.
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        example = locate_document("config.example.toml")
        remedy = f"Make one with: authz-server init, or copy {example}"
        raise SettingsError(
            "there is no such settings file", file=str(path), remedy=remedy
        ) from None
    except OSError as error:
        raise SettingsError(
            f"the file cannot be read ({describe_refusal(path, error)})", file=str(path)
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError("the file is not UTF-8", file=str(path)) from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits is a ValueError, and no error of TOML's.
        problem = f"the file is not TOML: {describe_toml_fault(error)}"
        raise SettingsError(problem, file=str(path)) from error
    for key, value in _texts("", document):
        if "\0" in key + value:
            raise SettingsError("holds a NUL character", file=str(path), key=repr(key)[1:-1])
        if key.count(".") + key.count("[") > _MAXIMUM_DEPTH:
            raise SettingsError("a table or list is nested too deeply", file=str(path))
    return document


def describe_toml_fault(error: Exception) -> str:
    """Return the message with names of tables as a file has them: tomllib writes tuples."""
    return _TUPLE.sub(lambda found: f"[{'.'.join(_PART.findall(found[0]))}]", str(error))


def _texts(key: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield every key and text of a document with its dotted path."""
    match value:
        case str():
            yield key, value
        case dict():
            for name, entry in value.items():
                path = f"{key}.{name}" if key else name
                yield path, ""
                yield from _texts(path, entry)
        case list():
            for position, entry in enumerate(value):
                path = f"{key}[{position}]"
                yield path, ""
                yield from _texts(path, entry)


def describe_refusal(path: Path, error: OSError) -> str:
    """Return the system's reason; if permission was denied, with owner and mode of what denies it.

    That is the file, or the folder above it that cannot be entered.
    """
    reason = error.strerror or str(error)
    if error.errno != errno.EACCES:
        return reason
    for place in (path, *path.absolute().parents):
        with suppress(OSError):
            status = place.stat()
            name, owner = "it" if place == path else place, describe_user(status.st_uid)
            return f"{reason}: {name} belongs to {owner}, mode {stat.S_IMODE(status.st_mode):04o}"
    return reason


def describe_user(number: int) -> str:
    """Return the name of a user of the system, or the number if it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def find_remedy(key: str, rule: RuleError) -> str:
    """Return the remedy for a broken rule of a key.

    A missing file of a secret that cannot be made again has a remedy of its own.
    """
    if isinstance(rule.__cause__, FileNotFoundError):
        return _RESTORED.get(key, rule.remedy)
    return rule.remedy


class SecretSource:
    """Resolves ``{ file = ... }`` and ``{ env = ... }`` to secrets.

    Args:
        folder: the base of relative file names.
        environ: the environment variables.
        private_files: whether to refuse a file that others than its owner can read.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], *, private_files: bool) -> None:
        self._folder = folder
        # A copy, which can be pickled for worker processes.
        self._environ = dict(environ)
        self._private_files = private_files

    def resolve(self, reference: object, key: str = "") -> Secret:
        """Return the secret without a trailing line break.

        Args:
            reference: the table that names it.
            key: the key of the reference, for the error.

        Raises:
            RuleError: the reference is malformed, or the source missing, empty or open to others.
        """
        match reference:
            case {"file": str(name), **others} if not others:
                read = partial(self._read_file, key, self._folder / name)
                return Secret(read(), read)
            case {"env": str(name), **others} if not others:
                return Secret(self._read_variable(key, name))
        remedy = 'Write { file = "..." } or { env = "..." }.'
        raise RuleError(key, "must name the source of the secret", remedy)

    def resolve_tables(self, tables: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Return free-form tables with every reference in them replaced by its secret."""
        return {name: self._resolve_entry(entry, f"{key}.{name}") for name, entry in tables.items()}

    def _resolve_entry(self, entry: object, key: str) -> object:
        match entry:
            case {"file": str(), **others} | {"env": str(), **others} if not others:
                return self.resolve(entry, key)
            case dict():
                return self.resolve_tables(entry, key)
        return entry

    def _read_variable(self, key: str, name: str) -> bytes:
        if name not in self._environ:
            refuse(key, f"the environment variable {name} is not set")
        return _stripped(key, self._environ[name].encode(errors="surrogateescape"))

    def _read_file(self, key: str, path: Path) -> bytes:
        try:
            # Non-blocking: the name may be that of a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            reason = describe_refusal(path, error)
            raise RuleError(key, f"the file {path} cannot be read ({reason})") from error
        try:
            self._verify_file(key, path, os.fstat(descriptor))
            return _stripped(key, os.read(descriptor, _MAXIMUM_SECRET_BYTES))
        finally:
            os.close(descriptor)

    def _verify_file(self, key: str, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAXIMUM_SECRET_BYTES:
            refuse(key, f"the path {path} is not a file of at most {_MAXIMUM_SECRET_BYTES} bytes")
        if self._private_files:
            _require_unexposed(key, path, status)


def _stripped(key: str, value: bytes) -> bytes:
    """Return a secret without byte order mark and trailing line break.

    Raises:
        RuleError: it is empty.
    """
    value = value.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        refuse(key, "the secret is empty")
    return value


def decode_key_encryption_key(text: bytes) -> bytes:
    """Return the 32 bytes encoded as 64 hexadecimal digits or 43 characters of base64url.

    Raises:
        RuleError: the text is neither.
    """
    if _HEXADECIMAL_KEY.fullmatch(text):
        return binascii.unhexlify(text)
    if not _BASE64URL_KEY.fullmatch(text):
        refuse(
            "keys.key_encryption_key",
            "the key must be 32 bytes, as 64 hexadecimal digits or as base64url",
            "Make one with: openssl rand -hex 32",
        )
    return base64.urlsafe_b64decode(text[:43] + b"=")


def resolve_path(name: str, folder: Path) -> str:
    """Return the absolute path; empty for an empty name."""
    return str(folder / name) if name else ""


def resolve_files(branch: AnyBranch, folder: Path) -> AnyBranch:
    """Return a table of the settings with the paths of its files made absolute."""
    paths = {
        name: resolve_path(path, folder)
        for name in branch.__struct_fields__
        if name.endswith(_FILES) and (path := getattr(branch, name))
    }
    # A copy is checked again.
    return msgspec.structs.replace(branch, **paths) if paths else branch


def resolve_key_file(backend: str, folder: Path) -> str:
    """Return a ring's URI with the path of ``file://`` made absolute."""
    scheme, separator, name = backend.partition("://")
    return f"file://{folder / name}" if separator and scheme == "file" and name else backend


def require_files(
    paths: Mapping[str, str], *, private_keys: Iterable[str], production: bool
) -> None:
    """Refuse names of missing files and folders, and private keys that are open to others.

    Args:
        paths: key to absolute path; an empty path is skipped.
        private_keys: the keys that name files of private keys.
        production: whether these files must be private.
    """
    for key, name in paths.items():
        require_present(key, name)
    if production:
        for key in private_keys:
            require_private(key, paths[key])


def require_present(key: str, name: str) -> None:
    """Refuse a missing file or folder, and a pipe or socket; skip an empty name.

    Without a writer, opening a pipe takes for ever.
    """
    status = _find_status(key, name) if name else None
    if name and status is None:
        refuse(key, f"the path {name} does not exist")
    if status is not None and (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
        refuse(key, f"the path {name} is not a file")


def require_private(key: str, name: str, remedy: str = "") -> None:
    """Refuse a file that others can read (see ``keys.private_files``); skip a missing one.

    Args:
        key: the key that names the file.
        name: its path.
        remedy: an alternative to changing its mode.
    """
    status = _find_status(key, name) if name else None
    if status is not None:
        _require_unexposed(key, name, status, remedy)


def _require_unexposed(
    key: str, name: str | Path, status: os.stat_result, remedy: str = ""
) -> None:
    exposure = find_exposure(status)
    if exposure is not None:
        refuse(
            key,
            f"the file {name} {exposure.problem}",
            f"Run: {exposure.command} {name}. {remedy}".removesuffix(". "),
        )


def _find_status(key: str, name: str) -> os.stat_result | None:
    try:
        return Path(name).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = describe_refusal(Path(name), error)
        raise RuleError(key, f"the path {name} cannot be reached ({reason})") from error
