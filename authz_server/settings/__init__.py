"""Settings: the typed tree of the TOML file, :func:`load_settings`, and a redacted view.

Each part of the server receives its own branch of the tree. Only :func:`load_settings` reads files
or the environment; the rules of the tables see secrets as values.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import msgspec

from authz_server.settings.admin import AdminSettings
from authz_server.settings.approvals import ApprovalSettings
from authz_server.settings.constraints import (
    LOOPBACK_HOSTS,
    RuleError,
    Secret,
    SettingsError,
    locate_document,
    require_strong_secret,
)
from authz_server.settings.database import DatabaseSettings, parse_database_url
from authz_server.settings.keys import KeySettings, RingSettings
from authz_server.settings.schema import (
    LONGEST_LIFETIME_SECONDS,
    STREAMS,
    AuditSettings,
    ClientSettings,
    EventStreamSettings,
    G2PSettings,
    IntrospectionSettings,
    LoggingSettings,
    PluginSettings,
    RevocationSettings,
    Role,
    ServerSettings,
    Settings,
    StatusListSettings,
    TokenSettings,
)
from authz_server.settings.sources import (
    SecretSource,
    decode_key_encryption_key,
    find_remedy,
    read_document,
    require_files,
    require_private,
    resolve_files,
    resolve_key_file,
    resolve_path,
)
from authz_server.settings.trust import (
    AssertionSettings,
    ClientCertificateSettings,
    ClientDocumentSettings,
    DPoPSettings,
    IssuerSettings,
    OutboundSettings,
    RegistrationSettings,
)
from authz_server.settings.vaults import VaultLoginSettings, VaultSettings

__all__ = [
    "LONGEST_LIFETIME_SECONDS",
    "LOOPBACK_HOSTS",
    "STREAMS",
    "AdminSettings",
    "ApprovalSettings",
    "AssertionSettings",
    "AuditSettings",
    "ClientCertificateSettings",
    "ClientDocumentSettings",
    "ClientSettings",
    "DPoPSettings",
    "DatabaseSettings",
    "EventStreamSettings",
    "G2PSettings",
    "IntrospectionSettings",
    "IssuerSettings",
    "KeySettings",
    "LoggingSettings",
    "OutboundSettings",
    "PluginSettings",
    "RegistrationSettings",
    "RevocationSettings",
    "RingSettings",
    "Role",
    "RuleError",
    "Secret",
    "ServerSettings",
    "SettingView",
    "Settings",
    "SettingsError",
    "StatusListSettings",
    "TokenSettings",
    "VaultLoginSettings",
    "VaultSettings",
    "describe_settings",
    "load_settings",
]


def load_settings(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Load and validate a settings file and the secrets that it names.

    Relative paths are relative to the folder of the file. ``keys.key_encryption_key`` is decoded to
    its 32 bytes.

    Args:
        path: the TOML file.
        environ: the environment variables for ``{ env = ... }`` secrets.

    Raises:
        SettingsError: the file cannot be used; names file, key, problem and remedy.
    """
    document = read_document(path)
    folder = path.resolve().parent
    private_files = document.get("environment") != "development"
    source = SecretSource(folder, environ, private_files=private_files)
    try:
        settings = _convert(document, source)
        if private_files and settings.database.password is None and settings.database.parts.secret:
            remedy = "Or put the password into a file that database.password names."
            require_private("database.url", str(path), remedy)
        return _complete(settings, folder, source)
    except RuleError as error:
        raise SettingsError(
            error.problem, file=str(path), key=error.key, remedy=error.remedy
        ) from error


def _complete(settings: Settings, folder: Path, source: SecretSource) -> Settings:
    replace = msgspec.structs.replace
    require_strong_secret("clients.secret_pepper", settings.clients.secret_pepper.reveal())
    audit, plugins = resolve_files(settings.audit, folder), settings.plugins
    if audit.destination not in STREAMS:
        audit = replace(audit, destination=resolve_path(audit.destination, folder))
    server, admin = resolve_files(settings.server, folder), resolve_files(settings.admin, folder)
    issuers = {name: resolve_files(each, folder) for name, each in settings.issuers.items()}
    outbound = resolve_files(settings.outbound, folder)
    certificates = resolve_files(settings.client_certificates, folder)
    g2p = resolve_files(settings.g2p, folder)
    database = settings.database.parts.with_folder(folder)
    require_files(
        {
            **{f"database.url: {name}": path for name, path in database.files().items()},
            "server.tls_certificate": server.tls_certificate,
            "server.tls_private_key": server.tls_private_key,
            "admin.tls_certificate": admin.tls_certificate,
            "admin.tls_private_key": admin.tls_private_key,
            "client_certificates.ca_file": certificates.ca_file,
            "outbound.ca_file": outbound.ca_file,
            **{f"issuers.{name}.ca_file": each.ca_file for name, each in issuers.items()},
            **{f"issuers.{name}.jwks_file": each.jwks_file for name, each in issuers.items()},
            "g2p.catalogue_directory": g2p.catalogue_directory,
        },
        private_keys=("server.tls_private_key", "admin.tls_private_key"),
        production=settings.environment == "production",
    )
    return replace(
        settings,
        keys=_complete_keys(settings.keys, folder),
        database=replace(settings.database, url=database.render()),
        server=server,
        admin=admin,
        client_certificates=certificates,
        audit=audit,
        outbound=outbound,
        issuers=issuers,
        g2p=g2p,
        plugins=replace(
            plugins, settings=source.resolve_tables(plugins.settings, "plugins.settings")
        ),
    )


def _complete_keys(keys: KeySettings, folder: Path) -> KeySettings:
    replace = msgspec.structs.replace
    if keys.key_encryption_key is not None:
        key = decode_key_encryption_key(keys.key_encryption_key.reveal())
        require_strong_secret("keys.key_encryption_key", key)
        keys = replace(keys, key_encryption_key=Secret(key))
    return replace(
        keys,
        rings={
            name: replace(ring, backend=resolve_key_file(ring.backend, folder))
            for name, ring in keys.rings.items()
        },
        vaults={name: _complete_vault(vault, folder) for name, vault in keys.vaults.items()},
    )


def _complete_vault(vault: VaultSettings, folder: Path) -> VaultSettings:
    return msgspec.structs.replace(
        resolve_files(vault, folder),
        login=resolve_files(vault.login, folder),
        rotator_login=vault.rotator_login and resolve_files(vault.rotator_login, folder),
    )


def _convert(document: dict[str, Any], source: SecretSource) -> Settings:
    def decode(kind: type, value: object) -> Any:  # noqa: ANN401 - msgspec's signature
        if kind is Secret:
            return source.resolve(value)
        raise TypeError(kind)

    try:
        return msgspec.convert(document, Settings, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise _explain(document, error) from error


_PLACE = re.compile(r"(?P<problem>.*?)( - at `\$\.?(?P<key>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`", re.DOTALL)
_BOUND = re.compile(r"Expected `(int|float)` [<>]=? [0-9.-]+")
_TYPES = {
    "array": "a list",
    "bool": "true or false",
    "date": "a date",
    "datetime": "a time",
    "float": "a number",
    "int": "a whole number",
    "object": "a table",
    "str": "a string in quotes",
    "time": "a time",
}
_LONGEST_NUMBER = 30
_DOCUMENT = "docs/configuration.md"


def _explain(document: dict[str, Any], error: msgspec.ValidationError) -> RuleError:
    """Convert msgspec's error to the key concerned and the problem."""
    found = _PLACE.fullmatch(str(error))
    table = (found and found["key"]) or ""
    problem = found["problem"] if found else str(error)
    if "[...]" in table:
        table = _name_entry(document, table, error)
    if isinstance(error.__cause__, RuleError):
        rule = error.__cause__
        return RuleError(key := _join(table, rule.key), rule.problem, find_remedy(key, rule))
    if named := _UNKNOWN.fullmatch(problem):
        remedy = f"{_suggest(table, named[1])}See {locate_document(_DOCUMENT)}."
        return RuleError(_join(table, named[1]), "there is no such key", remedy)
    if named := _MISSING.fullmatch(problem):
        remedy = f"See {locate_document(_DOCUMENT)}."
        return RuleError(_join(table, named[1]), "must be set", remedy)
    if named := _TYPE.fullmatch(problem):
        problem = f"must be {_in_words(named[1])}, not {_in_words(named[2])}"
    elif _BOUND.fullmatch(problem) and (bounds := _bounds(table)):
        problem = f"{_number_at(document, table)} is outside {bounds}"
    return RuleError(table, problem[:1].lower() + problem[1:], _allowed(table))


def _in_words(kinds: str) -> str:
    """Return a readable name for msgspec's name of a type, optional or not."""
    return _TYPES.get(kinds.removesuffix(" | null"), f"`{kinds}`")


def _suggest(table: str, name: str) -> str:
    """Return a sentence that suggests a similar key of the table; empty if there is none."""
    from difflib import get_close_matches  # noqa: PLC0415 - for an error alone

    known = getattr(_kind_of(table), "__struct_fields__", ())
    close = get_close_matches(name, known, n=1)
    return f"Did you mean {_join(table, close[0])}? " if close else ""


def _name_entry(document: dict[str, Any], table: str, error: msgspec.ValidationError) -> str:
    """Return the path with the entry's name, which msgspec omits; converts each entry alone."""
    path, _, rest = table.partition("[...]")
    *parents, last = path.split(".")
    above: list[dict[str, Any]] = [document]
    for name in parents:
        above.append(above[-1][name])
    for name, entry in above[-1][last].items():
        alone: dict[str, Any] = {last: {name: entry}}
        for parent, values in zip(reversed(parents), reversed(above), strict=False):
            alone = {parent: {**values, **alone}}
        try:
            msgspec.convert({**document, **alone}, Settings, dec_hook=_any_secret)
        except msgspec.ValidationError as again:
            if str(again) == str(error):
                return f"{path}.{name}{rest}"
    return table


def _any_secret(kind: type, value: object) -> Any:  # noqa: ANN401 - msgspec's signature
    del kind, value
    return Secret(b"")


def _join(table: str, key: str) -> str:
    return ".".join(part for part in (table, key) if part)


def _kind_of(key: str) -> Any:  # noqa: ANN401 - a type, or what annotations have in its place
    """Return the type of a key, by its dotted path; None if there is no such key."""
    kind: Any = Settings
    for name in filter(None, key.split(".")):
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        kind = getattr(kind, "__annotations__", {}).get(name)
        if NoneType in get_args(kind):
            kind = get_args(kind)[0]
    return kind


def _number_at(document: dict[str, Any], key: str) -> str:
    """Return the number at a dotted path of the document, if it is not too long to be shown."""
    value: Any = document
    for name in key.split("."):
        # The name of an entry may hold a dot.
        value = value.get(name) if isinstance(value, dict) else None
    text = hex(value) if isinstance(value, int) else str(value)
    return "the number" if value is None or len(text) > _LONGEST_NUMBER else str(value)


def _bounds(key: str) -> str:
    """Return the bounds in the type of a key as text; empty if the key is not in a table."""
    match get_args(_kind_of(key)):
        case (_, msgspec.Meta(ge=lowest, le=highest)):
            return f"{lowest} to {highest}"
    return ""


def _allowed(key: str) -> str:
    """Return a sentence with the allowed values of a key; empty if they are not a fixed list."""
    kind = _kind_of(key)
    if get_origin(kind) is not Literal:
        return ""
    return f"Use one of {', '.join(get_args(kind))}."


class SettingView(NamedTuple):
    """One key as ``config show`` prints it, without secrets and passwords."""

    key: str
    value: str | int | bool | list[str]
    is_default: bool


def describe_settings(settings: Settings) -> list[SettingView]:
    """Return every key in the file's order, with its redacted value and a default mark."""
    return list(_describe("", settings))


def _describe(prefix: str, table: msgspec.Struct) -> Iterator[SettingView]:
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        default = _default(field)
        key = _join(prefix, field.name)
        if isinstance(value, msgspec.Struct):
            yield from _describe(key, value)
        elif isinstance(value, dict):
            yield from _describe_entries(key, value, default)
        else:
            yield SettingView(key, _redact(key, value), value == default)


def _describe_entries(key: str, entries: dict[str, Any], default: object) -> Iterator[SettingView]:
    for name, entry in entries.items():
        known = default.get(name) if isinstance(default, dict) else None
        if isinstance(entry, msgspec.Struct):
            for view in _describe(f"{key}.{name}", entry):
                yield view._replace(is_default=entry == known)
        elif isinstance(entry, dict):
            yield from _describe_entries(f"{key}.{name}", entry, known)
        else:
            yield SettingView(f"{key}.{name}", _redact(key, entry), is_default=False)


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _redact(key: str, value: object) -> str | int | bool | list[str]:
    match value:
        case Secret():
            return "(set)"
        case None:
            return "(not set)"
        case str() if key == "database.url":
            return parse_database_url(value).render(hide_password=True)
        case str() | int():
            return value
        case list() | tuple():
            return [str(_redact(key, entry)) for entry in value]
    return str(value)
