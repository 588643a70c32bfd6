"""Open the store of shared counts that the settings name."""

from authz_server.audit.notifier import Notify
from authz_server.clients.counters.database import DatabaseCounters
from authz_server.clients.counters.shared import SharedCounters, Store
from authz_server.database.orm import Database
from authz_server.settings import ClientSettings, Secret, SettingsError


def open_counters(
    settings: ClientSettings, database: Database, issuer: str, notify: Notify = lambda _: None
) -> SharedCounters | None:
    """Return the shared counters; None if each process counts for itself.

    Args:
        settings: the table ``[clients]``.
        database: the database of the server.
        issuer: the issuer, which keeps the counts of several servers in one store apart.
        notify: receives events.

    Raises:
        SettingsError: the library of Redis is not installed, or cannot read the URL.
    """
    if settings.throttle == "memory":
        return None
    if settings.throttle == "database":
        return SharedCounters(DatabaseCounters(database), issuer, notify=notify)
    return SharedCounters(open_redis(settings.redis_url), issuer, notify=notify)


def open_redis(url: Secret | None) -> Store:
    """Return the store of counts in Redis, without connecting.

    Raises:
        SettingsError: the library is not installed, or cannot read the URL.
    """
    try:
        from authz_server.clients.counters.redis import RedisCounters  # noqa: PLC0415 - of an extra
    except ImportError as error:
        raise SettingsError(
            f"the library is missing ({error})",
            key="clients.throttle",
            remedy="Install requirements/backends.txt (docs/operations.md, Install).",
        ) from error
    try:
        return RedisCounters(url.reveal().decode() if url is not None else "")
    except ValueError:
        # The library's message might repeat the password.
        raise SettingsError("the URL cannot be read", key="clients.redis_url") from None
