"""Read declarative files: TOML or JSON, checked in form, with the place of every entry.

``docs/declarative.md`` describes the format. A refusal begins with the file, the line where there
is one, and the entry.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta

from authz_server.clients.authentication.shared_secret import CLIENT_SECRET
from authz_server.clients.validation import DEFAULT_GRANT_TYPES
from authz_server.errors import InvalidChangeError, OperatorError
from authz_server.operations.declarative.parsing import parse_json, parse_toml, read_bounded

Section = Literal["scopes", "resource_servers", "clients", "programmes", "operators"]
SECTIONS: tuple[Section, ...] = get_args(Section)
Catalogue = Literal["g2p-connect"]

#: The members of clients that are times.
INSTANTS = ("starts_at", "expires_at")

_MAXIMUM_DESCRIBED_CHARACTERS = 200
#: The files of a folder.
_SUFFIXES = (".json", ".toml")

Texts = tuple[str, ...]
_Seconds = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_NOUNS: Mapping[Section, str] = {
    "scopes": "scope",
    "resource_servers": "resource server",
    "clients": "client",
    "programmes": "programme",
    "operators": "operator",
}


class DeclaredScope(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A scope of one's own, or one of a catalogue that differs from it.

    Attributes:
        risk: ``read``, ``write`` or ``money``.
        lifetime_cap_seconds: the longest lifetime of a token with it; None: no limit.
        aliases: its other spellings.
        callback_partner: the scope of the operation that answers this one.
    """

    description: str = ""
    risk: str = "write"
    lifetime_cap_seconds: _Seconds | None = None
    aliases: Texts = ()
    callback_partner: str | None = None


class DeclaredStream(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The event stream of a resource server; the fields are those of ``event-stream set``.

    Attributes:
        delivery: ``push`` or ``poll``.
        endpoint_url: where events are pushed.
        events: the short names of its events; empty: all.
    """

    delivery: str
    endpoint_url: str = ""
    events: Texts = ()


class DeclaredResourceServer(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A resource server; the fields are those of the command ``resource-server create``.

    Attributes:
        enabled: None leaves the state as it is; a new one is enabled.
        scopes: all scopes that it owns; a trailing ``/*`` stands for all below.
        event_stream: its event stream; False: it has none; None leaves the stream as it is.
    """

    name: str
    identifier: str
    organisation: str = ""
    enabled: bool | None = None
    authentication_method: str = CLIENT_SECRET
    token_format: str = "jwt"  # noqa: S105 - a format, not a secret
    signing_ring: str | None = None
    token_type: str = "at+jwt"  # noqa: S105 - a media type, not a secret
    introspection_audience: str = "identifier"
    permissions: Texts = ()
    scopes: Texts = ()
    event_stream: DeclaredStream | bool | None = None
    properties: dict[str, Any] = {}


class DeclaredClient(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A client; the fields are those of the command ``client create``.

    Attributes:
        enabled: None leaves the state as it is; a new one is enabled.
    """

    name: str
    organisation: str = ""
    enabled: bool | None = None
    authentication_method: str = CLIENT_SECRET
    grant_types: Texts = DEFAULT_GRANT_TYPES
    allowed_scopes: Texts
    default_scopes: Texts = ()
    allowed_resource_servers: Texts = ()
    permissions: Texts = ()
    token_lifetime_seconds: int | None = None
    g2p_answer: str = "document"
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    properties: dict[str, Any] = {}


class DeclaredProgramme(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A programme; the fields are those of the command ``stop define``.

    Attributes:
        scopes: its scopes; a trailing ``/*`` stands for all below.
        clients: the ids of its clients.
    """

    scopes: Texts = ()
    clients: Texts = ()


class DeclaredRole(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A role of an operator with its limits; an empty list does not limit.

    Attributes:
        role: its name.
        resource_servers: the ids of the resource servers that it is limited to.
        organisations: the organisations that it is limited to.
    """

    role: str
    resource_servers: Texts = ()
    organisations: Texts = ()


class DeclaredOperator(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """An operator of this server.

    Attributes:
        enabled: None leaves the state as it is; a new one is enabled.
        roles: the roles; a name alone has no limits.
    """

    enabled: bool | None = None
    roles: tuple[str | DeclaredRole, ...] = ()


class _Top(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members of a file."""

    format: Literal[1] = 1
    catalogues: tuple[Catalogue, ...] = ()
    scopes: dict[str, Any] = {}
    resource_servers: dict[str, Any] = {}
    clients: dict[str, Any] = {}
    programmes: dict[str, Any] = {}
    operators: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that was read.

    Attributes:
        name: its path, as it was given.
        text: its content.
    """

    name: str
    text: str = field(repr=False)

    def describe(self) -> dict[str, str | int]:
        """Return the name, the SHA-256 digest in hex and the size of the file."""
        content = self.text.encode()
        return {
            "name": self.name[:_MAXIMUM_DESCRIBED_CHARACTERS],
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }

    def place(self, section: str, entry: str) -> str:
        """Return the file, the line if it is found, and the entry, for an error."""
        quoted = re.escape(entry)
        header = rf"^[ \t]*\[[ \t]*{section}[ \t]*\.[ \t]*[\"']?{quoted}[\"']?[ \t]*[\].]"
        member = rf"^[ \t]*[\"']?{quoted}[\"']?[ \t]*[:=]"
        found = re.search(header, self.text, re.MULTILINE)
        found = found or re.search(member, self.text, re.MULTILINE)
        line = f":{self.text.count(chr(10), 0, found.start()) + 1}" if found else ""
        return f'{self.name}{line}: {section}."{entry}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The entries of one or more files.

    Attributes:
        catalogues: the shipped catalogues whose scopes have to be there.
        sections: the sections that a file has, empty ones too; pruning is limited to them.
        sources: the file of each entry, by section and name.
        files: the files, in the given order.
    """

    catalogues: list[Catalogue] = field(default_factory=list)
    scopes: dict[str, DeclaredScope] = field(default_factory=dict)
    resource_servers: dict[str, DeclaredResourceServer] = field(default_factory=dict)
    clients: dict[str, DeclaredClient] = field(default_factory=dict)
    programmes: dict[str, DeclaredProgramme] = field(default_factory=dict)
    operators: dict[str, DeclaredOperator] = field(default_factory=dict)
    sections: set[str] = field(default_factory=set)
    sources: dict[tuple[Section, str], SourceFile] = field(default_factory=dict)
    files: list[SourceFile] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """The SHA-256 digest of the files, one after the other, in hex."""
        return hashlib.sha256("\0".join(file.text for file in self.files).encode()).hexdigest()

    @contextmanager
    def at(self, section: Section, entry: str) -> Iterator[None]:
        """Add the place of an entry to an error of the block."""
        source = self.sources.get((section, entry))
        try:
            yield
        except OperatorError as error:
            place = source.place(section, entry) if source else f'{section}."{entry}"'
            error.args = (f"{place}: {error}",)
            raise


def read_declaration(paths: Sequence[Path]) -> Declaration:
    """Return the entries of files; ``.json`` is JSON, every other name is TOML.

    A folder stands for the files ``*.toml`` and ``*.json`` in it, in the order of their names.

    Raises:
        InvalidChangeError: a file is too large, malformed, or has a member that is unknown or of
            another type; an entry is in two files; a folder has no such file; or no file has a
            section.
        OSError: a file cannot be read.
    """
    files = [file for path in paths for file in _files_of(path)]
    return parse_declaration(SourceFile(name=str(path), text=read_bounded(path)) for path in files)


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise InvalidChangeError(f"The folder {path} has no file *.toml or *.json.")
    return found


def parse_declaration(files: Iterable[SourceFile]) -> Declaration:
    """Return the entries of files that were read; their names decide as in the other function.

    Raises:
        InvalidChangeError: as for :func:`read_declaration`.
    """
    declaration = Declaration()
    for source in files:
        _add_file(declaration, source)
    if not (declaration.sections or declaration.catalogues):
        raise InvalidChangeError(f"The files have none of the sections: {', '.join(SECTIONS)}.")
    return declaration


def _add_file(declaration: Declaration, source: SourceFile) -> None:
    declaration.files.append(source)
    parse = parse_json if source.name.lower().endswith(".json") else parse_toml
    members = parse(source.text, source.name)
    top = _converted(members, _Top, lambda where: f"{source.name}: {where or 'the file'}")
    declaration.sections.update(members.keys() & frozenset(SECTIONS))
    declaration.catalogues.extend(top.catalogues)
    for section, struct in _STRUCTS.items():
        _add_entries(declaration, source, section, getattr(top, section), struct)


_STRUCTS: Mapping[Section, type[msgspec.Struct]] = {
    "scopes": DeclaredScope,
    "resource_servers": DeclaredResourceServer,
    "clients": DeclaredClient,
    "programmes": DeclaredProgramme,
    "operators": DeclaredOperator,
}
T = TypeVar("T")


def _add_entries(
    declaration: Declaration,
    source: SourceFile,
    section: Section,
    entries: Mapping[str, Any],
    struct: type[msgspec.Struct],
) -> None:
    into = getattr(declaration, section)
    for name, value in entries.items():
        if (other := declaration.sources.get((section, name))) is not None:
            raise InvalidChangeError(
                f"{source.place(section, name)}: the {_NOUNS[section]} is in {other.name} too"
            )
        entry = _converted(value, struct, _within(source, section, name))
        _require_instants(entry, source, section, name)
        into[name] = entry
        declaration.sources[section, name] = source


def _within(source: SourceFile, section: str, name: str) -> Callable[[str], str]:
    def place(where: str) -> str:
        return f"{source.place(section, name)}{f'.{where}' if where else ''}"

    return place


def _converted(value: object, struct: type[T], place: Callable[[str], str]) -> T:
    """Return a struct; ``place`` adds the path within it to the beginning of an error."""
    try:
        return msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        problem, _, rest = str(error).partition(" - at `$")
        where = rest.removesuffix("`").lstrip(".")
        raise InvalidChangeError(f"{place(where)}: {problem}") from error


def _require_instants(entry: object, source: SourceFile, section: str, name: str) -> None:
    for member in INSTANTS:
        value = getattr(entry, member, None)
        if value is None:
            continue
        try:
            usable = value.tzinfo is not None and value.astimezone(UTC) is not None
        except OverflowError:
            usable = False
        if not usable:
            raise InvalidChangeError(
                f"{source.place(section, name)}.{member}: use a time with its zone, such as "
                "2030-01-31T12:00:00Z"
            )
