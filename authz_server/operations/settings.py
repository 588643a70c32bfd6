"""Check the settings for problems, which prevent a start, and for warnings."""

from dataclasses import dataclass

from authz_server.database.schema import opened_database
from authz_server.operations.clients import find_unowned_scopes
from authz_server.operations.own_certificates import find_ending_certificates
from authz_server.operations.preflight import (
    check_pepper,
    count_of_other_pepper,
    find_occupied,
    find_problems,
    find_unknown_names,
)
from authz_server.settings import Settings, SettingsError

_NAMED_SCOPES = 10


@dataclass(frozen=True, slots=True)
class SettingsWarning:
    """A setting, or a kind of registration, with an effect that operators may not expect.

    Attributes:
        key: the dotted path of the setting, or the kind of registration.
        problem: the effect of the present value, in whole sentences.
        remedy: the value that corrects it.
    """

    key: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem} {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsReport:
    """The result of a check.

    Attributes:
        problems: the problems that prevent a server from starting or issuing, as sentences.
        warnings: the settings that an operator should review.
    """

    problems: tuple[str, ...]
    warnings: tuple[SettingsWarning, ...]


def check_settings(settings: Settings, *, offline: bool = False) -> SettingsReport:
    """Check whether a server can start under the settings, without a change.

    Args:
        settings: the settings; each value by itself is checked already.
        offline: only check files, not the database, keys and addresses.
    """
    problems = find_problems(settings, offline=offline)
    warnings = find_warnings(settings)
    if not offline:
        warnings += tuple(
            SettingsWarning(
                key,
                f"{address} is in use: by this server if it runs, else by another program.",
                "`authz-server serve` needs it.",
            )
            for key, address in find_occupied(settings)
        )
    if not offline and not problems:
        warnings += _warn_of_unowned_scopes(settings)
        warnings += _warn_of_other_pepper(settings)
        warnings += tuple(SettingsWarning(*found) for found in find_unknown_names(settings))
    return SettingsReport(problems=tuple(problems), warnings=warnings)


def find_warnings(settings: Settings) -> tuple[SettingsWarning, ...]:
    """Return the warnings about the settings, without reading the database."""
    server = settings.server
    ending = tuple(SettingsWarning(*found) for found in find_ending_certificates(settings))
    # In production the issuer is https. Without a certificate, the server listens on loopback for
    # a proxy that terminates TLS.
    if settings.environment == "development" or server.tls_certificate or server.trusted_proxies:
        return ending
    return (
        *ending,
        SettingsWarning(
            "server.trusted_proxies",
            "The issuer is https and the server has no TLS certificate, so a proxy must stand in "
            "front, but no proxy is trusted. All clients then share the proxy's address in records "
            "and in throttling.",
            'Name the address from which the proxy connects, such as ["127.0.0.1"].',
        ),
    )


def _warn_of_unowned_scopes(settings: Settings) -> tuple[SettingsWarning, ...]:
    with opened_database(settings.database) as database, database.reading() as session:
        unowned = find_unowned_scopes(session)
    if not unowned:
        return ()
    named = ", ".join(unowned[:_NAMED_SCOPES])
    named += f" and {len(unowned) - _NAMED_SCOPES} more" if len(unowned) > _NAMED_SCOPES else ""
    problem = f"Clients were granted {named}, which no resource server owns: requests are refused."
    return (SettingsWarning("scopes", problem, "`authz-server scope assign` gives them one."),)


def warn_of_pepper(settings: Settings) -> tuple[SettingsWarning, ...]:
    """Return a warning if the secrets in the database were all made with another pepper.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    try:
        check_pepper(settings)
    except SettingsError as error:
        return (SettingsWarning(error.key, f"{error.problem}.", error.remedy),)
    return ()


def _warn_of_other_pepper(settings: Settings) -> tuple[SettingsWarning, ...]:
    number = count_of_other_pepper(settings)
    if not number:
        return ()
    return (
        SettingsWarning(
            "clients.secret_pepper",
            f"Another pepper made some of the secrets ({number}): they are refused.",
            "`authz-server client secret due` lists them.",
        ),
    )
