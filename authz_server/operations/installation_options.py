"""The options of an installation, for a new settings file or to compare with an existing one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz_server.errors import InvalidChangeError
from authz_server.operations.settings_template import Answers
from authz_server.settings import RuleError, Settings, SettingsError
from authz_server.settings.constraints import is_loopback, require_issuer
from authz_server.settings.database import DatabaseUrl, parse_database_url
from authz_server.settings.sources import SecretSource, read_document

DEFAULT_PORT = 8080
MAXIMUM_PORT = 65_535
DATABASE_PASSWORD = "secrets/database-password"  # noqa: S105 - a path
_DATABASE_URL = "sqlite:///authz-server.db"


@dataclass(frozen=True, slots=True)
class Difference:
    """An option that a settings file contradicts.

    Attributes:
        option: the option's name.
        has: the value in the file, without secrets.
        asked: the value of the option, without secrets.
    """

    option: str
    has: str
    asked: str

    def __str__(self) -> str:
        return f"{self.option}: the settings file has {self.has}, not {self.asked}"


@dataclass(frozen=True, slots=True)
class InstallationOptions:
    """The given options; None or empty: not given."""

    issuer: str | None
    database_url: str | None
    database_password_file: Path | None
    development: bool
    port: int | None
    health_port: int | None
    trusted_proxies: tuple[str, ...]

    def answers(self, directory: Path) -> Answers:
        """Return the content of a new settings file.

        Args:
            directory: its folder.

        Raises:
            InvalidChangeError: an option is missing, or two contradict each other.
            SettingsError: a value cannot be used.
        """
        if self.issuer is None and not self.development:
            raise InvalidChangeError(
                "Name the --issuer URL that clients will see, or use --development for trying out."
            )
        try:
            return self._answers(directory)
        except RuleError as error:
            raise SettingsError(error.problem, key=error.key, remedy=error.remedy) from error

    def password(self) -> bytes | None:
        """Return the password in the database URL; None if there is none."""
        password = self._url().password
        return None if password is None else password.encode()

    def differences(self, settings: Settings, config: Path) -> Iterator[Difference]:
        """Yield the options that the settings in ``config`` contradict."""
        yield from _compare("--issuer", settings.issuer, self.issuer)
        environment = "development" if self.development else None
        yield from _compare("--development", settings.environment, environment)
        yield from _compare("--port", settings.server.port, self.port)
        yield from _compare("--health-port", settings.server.health_port, self.health_port)
        proxies = ", ".join(sorted(settings.server.trusted_proxies)) or "none"
        asked_proxies = ", ".join(sorted(self.trusted_proxies))
        yield from _compare("--trusted-proxy", proxies, asked_proxies or None)
        folder = config.resolve().parent
        if self.database_url is not None:
            has = _without_password(settings.database.parts)
            asked = _without_password(self._url().with_folder(folder))
            yield from _compare("--database-url", has, asked)
            given = self._url().password
            if given is not None and given != settings.database.current_password():
                yield Difference("--database-url", "another password", "the one given")
        if self.database_password_file is not None:
            reference = read_document(config).get("database", {}).get("password", {})
            has = str(folder / reference["file"]) if "file" in reference else "no password file"
            yield from _compare(
                "--database-password-file", has, str(self.database_password_file.resolve())
            )

    def _url(self) -> DatabaseUrl:
        try:
            return parse_database_url(self.database_url or _DATABASE_URL)
        except RuleError as error:
            raise SettingsError(
                error.problem, key=f"--database-{error.key}", remedy=error.remedy
            ) from error

    def _answers(self, directory: Path) -> Answers:
        issuer = self.issuer or f"http://127.0.0.1:{self.port or DEFAULT_PORT}"
        parts = require_issuer(issuer, plain_http_allowed=self.development)
        here = self.development and is_loopback(parts.hostname or "")
        port = self.port or (here and parts.port) or DEFAULT_PORT
        return Answers(
            issuer=issuer,
            environment="development" if self.development else "production",
            database_url=self._url_without_password(),
            database_password_file=self._password_file(directory),
            host="::1" if here and parts.hostname == "::1" else "127.0.0.1",
            port=port,
            health_port=self.health_port or (port + 1 if port < MAXIMUM_PORT else port - 1),
            mount_prefix=parts.path,
            trusted_proxies=self.trusted_proxies,
        )

    def _url_without_password(self) -> str:
        url = self._url()
        if url.password is None:
            return self.database_url or _DATABASE_URL
        return url.with_parameters(password=None).render()

    def _password_file(self, directory: Path) -> str:
        """Return the value of the password file in the settings file; empty if there is none."""
        has_password = self._url().password is not None
        if self.database_password_file is None:
            return DATABASE_PASSWORD if has_password else ""
        if has_password:
            raise InvalidChangeError(
                "The password is in --database-url and in --database-password-file: "
                "leave it out of the URL."
            )
        if self._url().is_sqlite:
            raise InvalidChangeError("SQLite has no password: leave --database-password-file out.")
        path, folder = self.database_password_file.resolve(), directory.resolve()
        source = SecretSource(folder, {}, private_files=not self.development)
        source.resolve({"file": str(path)}, "--database-password-file")
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _compare(option: str, has: Any, asked: Any) -> Iterator[Difference]:  # noqa: ANN401 - any two values
    if asked is not None and asked != has:
        yield Difference(option, str(has), str(asked))


def _without_password(url: DatabaseUrl) -> str:
    if url.is_sqlite:
        return url.render()
    return url.with_parameters(password=None).render(hide_password=True)
