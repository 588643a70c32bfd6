"""Check that a server can start under its settings, for ``serve`` and ``config check``."""

import errno
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from authz_server.app import require_usable
from authz_server.assembly import Services
from authz_server.audit.destination import require_destination
from authz_server.audit.latest_change import require_latest_change
from authz_server.audit.restored_database import require_not_restored
from authz_server.clients.counters.opening import open_redis
from authz_server.clients.counters.shared import StoreError
from authz_server.clients.peppers import count_secrets, require_own_pepper
from authz_server.database.errors import describe_failure, find_sentence, with_driver_error
from authz_server.database.schema import opened_database
from authz_server.database.tables import require_whole_schema
from authz_server.errors import OAuthError, OperatorError
from authz_server.key_rings.backends import find_mismatch
from authz_server.logs import redact
from authz_server.operations.group_roles import GroupRoles
from authz_server.operations.keys.first_keys import require_opened_keys
from authz_server.operations.own_certificates import find_certificate_faults
from authz_server.operations.provider_key import load_provider_key
from authz_server.operations.references import (
    find_missing_rings,
    find_references,
    find_unregistered,
    require_rings_of_servers,
)
from authz_server.operations.trust_files import check_trust, find_trust_faults
from authz_server.plugin_manager import PluginError
from authz_server.serving.tls import tls_context
from authz_server.settings import Settings, SettingsError
from keys.errors import KeysError
from keys.lifecycle.rules import find_active_key
from keys.signing_key import RingSnapshot

_CONNECT_SECONDS = 2.0

Check = Callable[[Settings], None]


class StartError(OperatorError):
    """A server cannot start; the message gives the reason and the remedy."""


def require_prepared(settings: Settings) -> None:
    """Raise unless a server can use the database, the keys and the audit file.

    Raises:
        StartError: keys are missing or cannot be decrypted.
        SchemaError: the schema has another revision, or a table cannot be read.
        SettingsError: the audit file cannot be written, or the server's own certificate or its
            authorities of clients cannot be used.
        KeysError: a key backend cannot be used.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer, or is unfit.
        psycopg.Error: the database cannot answer, or is unfit.
    """
    for check in (*_FILES, _check_database, _check_keys):
        check(settings)


def find_faults(settings: Settings) -> list[str]:
    """Return the faults that keep the server from no other work, such as those of one issuer.

    Raises:
        PluginError: a plugin cannot start.
    """
    with _parts(settings) as services:
        plugins = services.plugins
        return [
            *_faults_of_files(settings),
            *plugins.faults,
            *find_missing_rings(settings, plugins.references),
        ]


def find_unknown_names(settings: Settings) -> list[tuple[str, str, str]]:
    """Return key, problem and remedy of each setting that names what is not registered.

    Raises:
        PluginError: a plugin cannot start.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    with _parts(settings) as services, services.database.reading() as session:
        references = [*find_references(settings), *services.plugins.references]
        return list(find_unregistered(session, references))


def check_counts(settings: Settings) -> None:
    """Require a Redis that counts; without it, the server starts and each process counts alone.

    Raises:
        SettingsError: it cannot be used, or drops counts once its memory is full.
    """
    clients = settings.clients
    if clients.throttle != "redis":
        return
    counts = open_redis(clients.redis_url)
    try:
        counts.probe()
        policy = counts.find_risk()
    except StoreError as error:
        problem = f"the counts fail ({redact(str(error))}): each process counts for itself"
        raise SettingsError(problem, key="clients.redis_url") from error
    if policy:
        raise SettingsError(
            f"its maxmemory-policy {policy} drops counts once its memory is full",
            key="clients.redis_url",
            remedy="Set its maxmemory-policy to noeviction.",
        )


def check_pepper(settings: Settings) -> None:
    """Require the pepper of the stored secrets, which clients with keys do not need.

    Raises:
        SettingsError: secrets were made with another pepper, and none with this one.
        sqlalchemy.exc.SQLAlchemyError: the database cannot answer.
    """
    with _parts(settings) as services, services.database.reading() as session:
        require_own_pepper(session, services.secrets.fingerprint, services.clock())


def count_of_other_pepper(settings: Settings) -> int:
    """Return how many secrets were made with another pepper, and have not ended."""
    with _parts(settings) as services, services.database.reading() as session:
        return count_secrets(session, services.secrets.fingerprint, services.clock())[1]


def _check_faults(settings: Settings) -> list[str]:
    try:
        return find_faults(settings)
    except PluginError:
        # The plugin is among the problems, and the other faults are found without it.
        return _faults_of_files(settings)


def _faults_of_files(settings: Settings) -> list[str]:
    faults = (*find_certificate_faults(settings), *find_trust_faults(settings))
    return list(map(str, faults))


def find_problems(settings: Settings, *, offline: bool = False) -> list[str]:
    """Return the problems of the settings, as sentences.

    They prevent a server from starting or issuing, or are faults of one partner, with which it
    starts.

    Args:
        settings: the settings; each value by itself is checked already.
        offline: only check files.
    """
    files = (require_usable, *_FILES, _check_latest_change)
    problems = [*_try(files, settings), *_check_faults(settings)]
    if offline:
        return problems
    problems += _try([_check_addresses, _check_vaults, check_counts], settings)
    found = list(_try([_check_database], settings))
    # Without the database, the other checks would fail for the same reason.
    problems += found or _try(_STORED, settings)
    # A plugin that cannot start fails every check that loads plugins.
    return list(dict.fromkeys(problems))


def _try(checks: Iterable[Check], settings: Settings) -> Iterator[str]:
    for check in checks:
        try:
            check(settings)
        except OAuthError as error:
            yield f"{error.description} {error.detail}".strip()
        except with_driver_error(SQLAlchemyError) as error:
            reported = find_sentence(error) or f"The database: {describe_failure(error)}."
            yield f"database.url: {reported}"
        except (KeysError, OperatorError, SettingsError) as error:
            yield str(error)


def _check_addresses(settings: Settings) -> None:
    for key, address, error in _refused_addresses(settings):
        # Most likely this server is running.
        if error.errno != errno.EADDRINUSE:
            problem = f"{address} cannot be listened on ({error.strerror})"
            raise SettingsError(problem, key=key) from error


def _check_vaults(settings: Settings) -> None:
    """Connect to the Vaults of the rings, without a login, which could use up its secret."""
    used = {ring.vault for ring in settings.keys.rings.values()} - {""}
    for name in sorted(used):
        reasons = [_find_silence(each) for each in settings.keys.vaults[name].addresses]
        if all(reasons):
            problem = f"none of them answers ({', '.join(reasons)}): their keys sign nothing"
            raise SettingsError(problem, key=f"keys.vaults.{name}.addresses")


def _find_silence(url: str) -> str:
    """Return why nothing can be reached at the host of a URL; empty if something can."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), _CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def find_occupied(settings: Settings) -> list[tuple[str, str]]:
    """Return the keys of the listeners whose addresses are in use, each with its address."""
    return [
        (key, address)
        for key, address, error in _refused_addresses(settings)
        if error.errno == errno.EADDRINUSE
    ]


def _refused_addresses(settings: Settings) -> Iterator[tuple[str, str, OSError]]:
    server, admin = settings.server, settings.admin
    for key, host, port in (
        ("server.host", server.host, server.port),
        ("server.health_host", server.health_host, server.health_port),
        *([("admin.host", admin.host, admin.port)] if admin.enabled else []),
    ):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            yield key, f"{host} port {port}", error


def check_tls(settings: Settings) -> None:
    """Require that the certificate of each listener can be used; SettingsError otherwise."""
    for role, listener in settings.listeners().items():
        table = "server" if role == "public" else role
        try:
            tls_context(listener, settings.client_certificates)
        except (OSError, ssl.SSLError) as error:
            problem = f"the certificate and its key cannot be used ({error.strerror or error})"
            raise SettingsError(problem, key=f"{table}.tls_certificate") from error


def _check_provider(settings: Settings) -> None:
    openid = settings.admin.openid
    GroupRoles(settings)
    if openid.private_key is not None:
        load_provider_key(openid.private_key.reveal())


def _check_audit(settings: Settings) -> None:
    require_destination(settings.audit.destination)


def _check_latest_change(settings: Settings) -> None:
    require_latest_change(settings.audit)


def _check_database(settings: Settings) -> None:
    if not settings.database.parts.is_sqlite:
        # Imported for PostgreSQL alone, because its driver is slow to import.
        from authz_server.database.connector import PostgresConnector  # noqa: PLC0415
        from authz_server.database.session_check import require_session  # noqa: PLC0415

        require_session(PostgresConnector(settings.database).open)
    require_whole_schema(settings.database)


def _check_keys(settings: Settings) -> None:
    with _parts(settings) as services:
        # First: a backend that cannot be opened is the reason why its ring has no keys.
        backends = services.key_backends
        filled = {ring.name for ring in _load_rings(services) if ring.keys}
        # A ring may have no key that signs: a new ring's wait, or all of them were revoked.
        for name in settings.keys.rings:
            if name not in filled:
                raise StartError(f"The key ring {name} has no keys: run `authz-server init`.")
        require_opened_keys(backends)


def _check_rings(settings: Settings) -> None:
    with _parts(settings) as services:
        now, rings = services.clock(), _load_rings(services)
    signing = {ring.name for ring in rings if find_active_key(ring.keys, now) is not None}
    for ring in rings:
        left_out = ring.name not in settings.keys.rings and ring.successor is None
        if left_out and ring.name in signing:
            raise SettingsError(
                f"the ring {ring.name} signs now and is not in the settings: keys.rings replaces "
                "the default rings as a whole",
                key=f"keys.rings.{ring.name}",
                remedy=f"Write the table [keys.rings.{ring.name}], or move it to another ring "
                "first with `authz-server keys move`.",
            )
    default, signing = settings.keys.default_ring, signing & settings.keys.rings.keys()
    if signing and default not in signing:
        raise SettingsError(
            f"no key of the ring {default} may sign yet, while {', '.join(sorted(signing))} can",
            key="keys.default_ring",
            remedy="Leave the default ring as it is until `authz-server keys status` shows a key "
            f"of {default} that signs.",
        )


def _check_definitions(settings: Settings) -> None:
    with _parts(settings) as services:
        rings = _load_rings(services)
    for ring in rings:
        known = ring.keys and ring.name in settings.keys.rings
        if known and (mismatch := find_mismatch(settings, ring)):
            raise SettingsError(mismatch, key=f"keys.rings.{ring.name}")


def _check_rings_of_servers(settings: Settings) -> None:
    with opened_database(settings.database) as database, database.reading() as session:
        require_rings_of_servers(session, settings)


def _check_restored(settings: Settings) -> None:
    with opened_database(settings.database) as database, database.reading() as session:
        require_not_restored(session, settings.audit)


#: The checks of what the settings name on this machine.
_FILES = (check_tls, check_trust, _check_provider, _check_audit)
#: The checks of what is in the database.
_STORED = (
    _check_keys,
    check_pepper,
    _check_rings,
    _check_definitions,
    _check_rings_of_servers,
    _check_restored,
)


@contextmanager
def _parts(settings: Settings) -> Iterator[Services]:
    """Yield the parts of a server that record nothing."""
    with opened_database(settings.database) as database:
        yield Services(settings, database)


def _load_rings(services: Services) -> tuple[RingSnapshot, ...]:
    return services.key_store.load_rings(services.clock())
