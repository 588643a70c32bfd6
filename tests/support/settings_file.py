"""Settings files for tests: what a test sets, over values that fit a test."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ISSUER = "https://authz.example"
#: A database that is at work, on a machine that is busy with something else.
PATIENT_DATABASE = {
    "statement_timeout_milliseconds": 30_000,
    "pool_timeout_milliseconds": 30_000,
    "staleness_limit_milliseconds": 30_000,
}

#: Of prepared databases, whose rows are copied into others.
_SHARED_SECRETS = {name: secrets.token_hex(32) for name in ("pepper", "key-encryption-key")}


def share_secrets(path: Path) -> None:
    """Take the secrets of prepared databases from a file, or write it: a run has one of them."""
    if path.exists():
        _SHARED_SECRETS.update(json.loads(path.read_text()))
    else:
        path.touch(0o600)
        path.write_text(json.dumps(_SHARED_SECRETS))


def write_settings(directory: Path, database_url: str, overrides: Mapping[str, Any]) -> Path:
    """Write a settings file with its secret files into `directory`; return its path.

    The server is in development mode at debug level, with one ES256 ring, so that keys cost little
    to make. `overrides` is a tree of tables and values laid over that; None takes a key away.
    """
    for name in ("pepper", "key-encryption-key"):
        write_secret(directory / name, secrets.token_hex(32))
    tree = _merge(_usual(directory, database_url), overrides)
    path = directory / "authz-server.toml"
    # The URL of a database of the tests holds a password.
    path.touch(0o600)
    path.write_text("".join(_lines(tree, ())))
    return path


def write_settings_beside(
    directory: Path, name: str, database_url: str, overrides: Mapping[str, Any]
) -> Path:
    """As :func:`write_settings`, into a folder in `directory`, with the secrets of `directory`."""
    folder = directory / name
    folder.mkdir()
    for secret in ("pepper", "key-encryption-key"):
        write_secret(folder / secret, (directory / secret).read_text())
    return write_settings(folder, database_url, overrides)


def write_shared_secrets(folder: Path) -> None:
    """Write the secret files with which databases are prepared, into a folder."""
    for name, text in _SHARED_SECRETS.items():
        write_secret(folder / name, text)


def holds_shared_secrets(folder: Path) -> bool:
    """Tell whether the secret files of a folder are those of prepared databases."""
    return all((folder / name).read_text() == text for name, text in _SHARED_SECRETS.items())


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, unless it is there already."""
    if not path.exists():
        path.touch(0o600)
        path.write_text(text)


def _usual(directory: Path, database_url: str) -> dict[str, Any]:
    return {
        "issuer": ISSUER,
        "environment": "development",
        "database": {"url": database_url},
        "clients": {"secret_pepper": {"file": "pepper"}},
        "keys": {
            "key_encryption_key": {"file": "key-encryption-key"},
            "rings": {"es256": {"algorithm": "ES256"}},
        },
        "audit": {"destination": str(directory / "audit.jsonl")},
        "logging": {"level": "debug"},
    }


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            merged[key] = _merge(base[key], value)
        else:
            merged[key] = value
    return {key: value for key, value in merged.items() if value is not None}


def _lines(table: Mapping[str, Any], path: tuple[str, ...]):
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if path:
        yield f"\n[{'.'.join(json.dumps(name) for name in path)}]\n"
    for key, value in table.items():
        if key not in tables:
            yield f"{json.dumps(key)} = {_toml(value)}\n"
    for key, value in tables.items():
        yield from _lines(value, (*path, key))


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(name)} = {_toml(each)}" for name, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's strings, numbers and booleans are TOML's too.
    return json.dumps(value, ensure_ascii=False)
