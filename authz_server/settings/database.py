"""The table ``[database]`` and its URL; a PostgreSQL URL is parsed by libpq's rules."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import quote, unquote

import msgspec
from msgspec import Meta

from authz_server.settings.constraints import Branch, Secret, refuse

#: Session settings that the server controls; a URL must not set them.
SESSION_SETTINGS = frozenset(
    {
        "client_encoding",
        "datestyle",
        "default_transaction_deferrable",
        "default_transaction_isolation",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "lock_timeout",
        "standard_conforming_strings",
        "statement_timeout",
        "synchronous_commit",
        "timezone",
        "transaction_timeout",
    }
)
_SQLITE = "sqlite:///"
_POSTGRESQL = re.compile(
    r"(postgresql|postgres|postgresql\+psycopg)://"
    r"(?:(?P<user>[^:/?@]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<hosts>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")
# Values that libpq accepts in place of a file.
_NO_FILE = {"sslrootcert": "system"}
_PASSWORDS = ("password", "sslpassword")
_WRITABLE = ("read-write", "primary", "any")
# A word of ``options``: -c name=value, -cname=value or --name=value.
_OPTION = re.compile(r"(?:^|\s)(?:-c\s*|--)([A-Za-z][A-Za-z0-9_.-]*)\s*=")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A parsed database URL.

    Attributes:
        is_sqlite: whether it names an SQLite database.
        file: the path of an SQLite file; empty for PostgreSQL.
        parameters: libpq's parameters in the URL; empty for SQLite.
    """

    is_sqlite: bool
    file: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def password(self) -> str | None:
        """The password in the URL; None if there is none."""
        return self.parameters.get("password")

    @property
    def secret(self) -> bool:
        """Whether the URL holds a password."""
        return any(self.parameters.get(name) for name in _PASSWORDS)

    def with_parameters(self, **changes: str | None) -> "DatabaseUrl":
        """Return the URL with these parameters; None removes one."""
        merged = {**self.parameters, **changes}
        kept = {name: value for name, value in merged.items() if value is not None}
        return replace(self, parameters=kept)

    def with_folder(self, folder: Path) -> "DatabaseUrl":
        """Return the URL with each relative path made absolute.

        Args:
            folder: the base of relative paths.
        """
        if self.is_sqlite:
            return replace(self, file=str(folder / self.file))
        paths = {name: str(folder / path) for name, path in self.files().items()}
        return self.with_parameters(**paths)

    def files(self) -> dict[str, str]:
        """Return the paths of the files that libpq reads, by parameter."""
        named = {name: self.parameters[name] for name in _FILES if self.parameters.get(name)}
        return {name: path for name, path in named.items() if path != _NO_FILE.get(name)}

    def render(self, *, hide_password: bool = False) -> str:
        """Return the URL as text."""
        if self.is_sqlite:
            return f"{_SQLITE}{self.file}"
        values = dict(self.parameters)
        for name in _PASSWORDS:
            if hide_password and name in values:
                values[name] = "***"
        user, password = values.pop("user", None), values.pop("password", None)
        authority = "" if user is None else quote(user, safe="")
        if password is not None:
            authority += f":{password if hide_password else quote(password, safe='')}"
        if authority:
            authority += "@"
        authority += _render_hosts(values)
        database = quote(values.pop("dbname", ""), safe="")
        query = "&".join(f"{name}={quote(value, safe='/:,*')}" for name, value in values.items())
        return f"postgresql+psycopg://{authority}/{database}{'?' if query else ''}{query}"


def _render_hosts(values: dict[str, str]) -> str:
    """Move hosts and ports from ``values`` into the authority of the URL; empty for sockets."""
    hosts = values.get("host", "").split(",")
    ports = values.get("port", "").split(",")
    if values.get("host", "") == "" or any(not host or host[0] in "/@" for host in hosts):
        return ""  # sockets, and ports alone, stay in the query
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        return ""
    del values["host"]
    values.pop("port", None)
    return ",".join(
        (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
        for host, port in zip(hosts, ports, strict=True)
    )


def parse_database_url(url: str) -> DatabaseUrl:
    """Parse an SQLite or PostgreSQL URL.

    Raises:
        RuleError: it is neither, or sets what the server controls; never repeats a password.
    """
    if url != url.strip() or not url.isprintable():
        refuse("url", "a line break or a space does not belong in it")
    if url.partition(":")[0] == "sqlite":
        return DatabaseUrl(is_sqlite=True, file=_sqlite_file(url))
    found = _POSTGRESQL.fullmatch(url)
    if found is None:
        _refuse_other(url)
    # Importing the driver takes a tenth of a second; SQLite does not need it.
    from psycopg import ProgrammingError  # noqa: PLC0415
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    _require_query(found["query"] or "")
    user, password = found["user"], found["password"]
    # libpq also stops at the first "@", and takes a "+" in the query literally.
    authority = "" if user is None else f"{user}{'' if password is None else ':' + password}@"
    path = f"/{found['database'] or ''}"
    query = f"?{found['query']}" if found["query"] else ""
    try:
        parameters = conninfo_to_dict(f"postgresql://{authority}{found['hosts']}{path}{query}")
    except (ProgrammingError, UnicodeError):
        # libpq's message would repeat the URL.
        _require_known(found["query"] or "")
        refuse("url", "this is not a database URL", "See docs/configuration.md.")
    values = {name: str(value) for name, value in parameters.items() if value is not None}
    if not values.get("port", "").replace(",", ""):
        values.pop("port", None)
    _require_usable(values)
    return DatabaseUrl(is_sqlite=False, parameters=values)


def _sqlite_file(url: str) -> str:
    if "?" in url or url.startswith(f"{_SQLITE}file:"):
        refuse("url", "an SQLite URL has no parameters", "Write sqlite:/// and the file's path.")
    if url in ("sqlite://", _SQLITE, f"{_SQLITE}:memory:"):
        reason = "a database in memory is empty in each process"
        refuse("url", reason, "Write sqlite:///authz-server.db.")
    if not url.startswith(_SQLITE):
        name = url.partition(":")[2].lstrip("/") or "authz-server.db"
        refuse("url", f"{url!r} names no file", f"Write sqlite:///{name}, with three slashes.")
    return url.removeprefix(_SQLITE)


def _refuse_other(url: str) -> NoReturn:
    scheme, separator, _ = url.partition("://")
    if scheme in ("postgresql", "postgres", "postgresql+psycopg") and separator:
        refuse("url", "this is not a database URL", "See docs/configuration.md.")
    if not separator and "=" in url:
        # libpq's keywords and values; never repeated, because a password may be among them.
        refuse("url", "this is not a URL", "Write postgresql://user@host/database.")
    if not separator and url and "@" not in url and ":" not in url:
        refuse("url", f"{url!r} is not a URL", f"For an SQLite file write sqlite:///{url}")
    refuse("url", "the database must be sqlite:///... or postgresql://...")


def _require_query(query: str) -> None:
    names = [unquote(part.partition("=")[0]) for part in query.split("&") if part]
    for name in names:
        if names.count(name) > 1:
            refuse("url", f"{name} is given twice")
    if "password" in names:
        refuse("url", "the password does not belong in the query", "Use database.password.")


def _require_known(query: str) -> None:
    from psycopg.pq import Conninfo  # noqa: PLC0415 - as above

    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    for part in filter(None, query.split("&")):
        name = unquote(part.partition("=")[0])
        if name not in known and name.isascii() and name.isprintable():
            refuse("url", f"libpq has no parameter {name!r}", "See docs/configuration.md.")


def _require_usable(values: Mapping[str, str]) -> None:
    for port in filter(None, values.get("port", "").split(",")):
        if not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65_535:  # noqa: PLR2004
            refuse("url", "a port in it is not a number from 1 to 65535")
    for name in _set_by_url(values):
        if name in SESSION_SETTINGS:
            refuse("url", f"{name} is controlled by the server", "Remove it from the URL.")
    target = values.get("target_session_attrs", "read-write")
    if target not in _WRITABLE:
        refuse("url", f"target_session_attrs={target} selects a server that takes no writes")


def _set_by_url(values: Mapping[str, str]) -> Iterable[str]:
    yield from (name for name in values if name == "client_encoding")
    for name in _OPTION.findall(values.get("options", "")):
        yield name.lower().replace("-", "_")


class DatabaseSettings(Branch, frozen=True):
    """``[database]``: the database URL, connections and time-outs."""

    url: str = "sqlite:///authz-server.db"
    password: Secret | None = None
    pool_size: Annotated[int, Meta(ge=1, le=1_000)] = 5
    pool_timeout_milliseconds: Annotated[int, Meta(ge=1, le=60_000)] = 1_000
    connect_timeout_seconds: Annotated[int, Meta(ge=1, le=60)] = 2
    statement_timeout_milliseconds: Annotated[int, Meta(ge=1, le=60_000)] = 2_000
    refresh_interval_milliseconds: Annotated[int, Meta(ge=10, le=60_000)] = 250
    staleness_limit_milliseconds: Annotated[int, Meta(ge=20, le=60_000)] = 1_000
    several_nodes: bool = False

    def __post_init__(self) -> None:
        if self.refresh_interval_milliseconds >= self.staleness_limit_milliseconds:
            refuse(
                "refresh_interval_milliseconds", "must be less than staleness_limit_milliseconds"
            )
        self._complete_url()

    @property
    def parts(self) -> DatabaseUrl:
        """The parsed URL."""
        return parse_database_url(self.url)

    def current_password(self) -> str | None:
        """Return the password as its file holds it now; None if there is none.

        Raises:
            RuleError: the file cannot be read.
        """
        if self.password is None:
            return self.parts.password
        return _decode(self.password.renew())

    def _complete_url(self) -> None:
        parts = self.parts
        if parts.is_sqlite and self.several_nodes:
            refuse(
                "several_nodes", "SQLite serves one machine", "Use PostgreSQL for several nodes."
            )
        if self.password is not None:
            password = _decode(self.password.reveal())
            if parts.is_sqlite or parts.password not in (None, password):
                refuse("password", "contradicts database.url", "Name the password in one place.")
            parts = parts.with_parameters(password=password)
        msgspec.structs.force_setattr(self, "url", parts.render())

    def __repr__(self) -> str:
        return f"DatabaseSettings({self.parts.render(hide_password=True)!r}, ...)"


def _decode(password: bytes) -> str:
    try:
        text = password.decode()
    except UnicodeDecodeError:
        refuse("password", "the password is not UTF-8")
    if "\0" in text:
        refuse("password", "the password holds NUL")
    return text
