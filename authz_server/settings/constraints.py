"""Constraints on settings values; each error names its key.

Nothing here reads files or the environment. ``authz_server.settings.schema`` applies the
constraints.
"""

import ipaddress
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

import msgspec

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


_SEGMENTS = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_PORT = re.compile(r":[0-9]{1,5}\Z")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_PLUGIN_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REDIS_URL = re.compile(rb"(rediss?://[!-~]+|unix://(?:[!-~]+@)?/[!-~]+)")


def locate_document(name: str) -> str:
    """Return the path of a document: in a checkout, or where the wheel puts it; else its name."""
    folders = (Path(__file__).parents[2], Path(sys.prefix, "share/doc/authz-server"))
    return next((str(each / name) for each in folders if (each / name).exists()), name)


class SettingsError(Exception):
    """The settings cannot be used.

    Args:
        problem: one sentence without its full stop.
        file: the file with the problem.
        key: the dotted path of the key, for example ``server.port``.
        remedy: a sentence with the remedy.
    """

    def __init__(self, problem: str, *, file: str = "", key: str = "", remedy: str = "") -> None:
        place = ": ".join(part for part in (file, key) if part)
        sentence = f"{place}: {problem}" if place else problem
        super().__init__(f"{sentence}. {remedy}" if remedy else sentence)
        self.problem, self.file, self.key, self.remedy = problem, file, key, remedy


class RuleError(ValueError):
    """A value violates a constraint; ``key`` is relative to its table."""

    def __init__(self, key: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key, self.problem, self.remedy = key, problem, remedy


class Secret:
    """Secret bytes that appear in no repr, log line or traceback.

    Args:
        value: the bytes.
        read_again: reads the bytes again from their source, if they may change.
    """

    __slots__ = ("_read_again", "_value")

    def __init__(self, value: bytes, read_again: Callable[[], bytes] | None = None) -> None:
        self._value = value
        self._read_again = read_again

    def reveal(self) -> bytes:
        """Return the bytes as read with the settings."""
        return self._value

    def renew(self) -> bytes:
        """Return the bytes as their file holds them now.

        Raises:
            RuleError: the file cannot be read, or is empty or open to others.
        """
        return self._value if self._read_again is None else self._read_again()

    def __repr__(self) -> str:
        return "Secret(...)"


class Branch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base class of every table: immutable; unknown keys are refused with their path."""


def refuse(key: str, problem: str, remedy: str = "") -> NoReturn:
    """Raise the RuleError for ``key``."""
    raise RuleError(key, problem, remedy)


def is_loopback(host: str) -> bool:
    """Return whether a host is reachable only from this machine."""
    if host in LOOPBACK_HOSTS:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_issuer(issuer: str, *, plain_http_allowed: bool) -> SplitResult:
    """Refuse issuers that RFC 8414, 2 forbids, and alternative spellings of the same address.

    Args:
        issuer: the URL exactly as tokens contain it.
        plain_http_allowed: whether http is accepted for a loopback host.

    Returns:
        the parts of the issuer.
    """
    parts = _split(issuer)
    if parts.scheme == "http" and not (plain_http_allowed and is_loopback(parts.hostname or "")):
        refuse(
            "issuer",
            "the issuer must begin with https://",
            "Plain http is allowed for loopback in development.",
        )
    if parts.scheme not in ("https", "http"):
        refuse("issuer", "the issuer must begin with https://")
    if "?" in issuer or "#" in issuer or "@" in parts.netloc:
        refuse("issuer", "the issuer must have no query, fragment or user (RFC 8414, 2)")
    if issuer.endswith("/"):
        refuse(
            "issuer",
            "the issuer must not end with a slash",
            "Tokens contain it exactly as written.",
        )
    host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
    if not _HOST.fullmatch(host):
        refuse("issuer", "the issuer's host must be a valid host name in lower case")
    if parts.path and not _SEGMENTS.fullmatch(parts.path):
        refuse("issuer", "the issuer's path must consist of plain segments")
    return parts


def _split(issuer: str) -> SplitResult:
    try:
        parts = urlsplit(issuer)
        _ = parts.port
    except ValueError as error:
        raise RuleError("issuer", "the issuer is not a URL") from error
    if not issuer.isascii() or not issuer.isprintable() or " " in issuer:
        refuse("issuer", "the issuer must consist of printable ASCII characters")
    return parts


def require_url(key: str, url: str, instead: str = "") -> None:
    """Refuse a base URL that is not https, or has a query, a fragment or a final slash.

    Args:
        key: the setting.
        url: its value.
        instead: another way, which the message adds.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    plain = url.isascii() and url.isprintable() and not set(url) & set(" ?#@")
    if not usable or not plain or url.endswith("/"):
        refuse(key, f"must be an https URL without query, fragment, user and final slash{instead}")


def require_mount_prefix(prefix: str) -> None:
    """Refuse a prefix that does not begin with a slash or ends with one."""
    if prefix and not _SEGMENTS.fullmatch(prefix):
        refuse("mount_prefix", "the prefix must be empty or like /namespace/v1.0.0")


def require_address(key: str, host: str) -> None:
    """Refuse a listener's host that is neither an IP address nor ``localhost``."""
    try:
        if host != "localhost":
            ipaddress.ip_address(host)
    except ValueError:
        refuse(
            key,
            f"{host!r} is not an IP address",
            "Listen on an address such as 127.0.0.1 or 0.0.0.0.",
        )


def require_hosts(key: str, hosts: Iterable[str]) -> None:
    """Refuse values that are not a lower-case Host header (RFC 9110, 7.2)."""
    for position, host in enumerate(hosts):
        if not _HOST.fullmatch(_PORT.sub("", host)):
            refuse(
                f"{key}[{position}]",
                f"{host!r} is not a host in lower case",
                "Write it as in the Host header: auth.internal or auth.internal:8443.",
            )


def require_networks(key: str, networks: Iterable[str]) -> None:
    """Refuse values that are not an IP address or network (CIDR)."""
    for position, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise RuleError(
                f"{key}[{position}]", f"{network!r} is not an IP network: {error}"
            ) from error


def require_within(key: str, networks: Iterable[str], outer: Iterable[str]) -> None:
    """Refuse a network that lies in none of the outer ones."""
    around = [ipaddress.ip_network(network) for network in outer]
    for position, text in enumerate(networks):
        network = ipaddress.ip_network(text)
        # Networks of two families cannot be compared.
        same = [each for each in around if each.version == network.version]
        if not any(network.subnet_of(each) for each in same):  # type: ignore[arg-type]
            refuse(f"{key}[{position}]", f"{text} is not in server.trusted_proxies")


def refuse_every_address(key: str, networks: Iterable[str]) -> None:
    """Refuse a network that contains every address of its family."""
    for network in networks:
        if ipaddress.ip_network(network).prefixlen == 0:
            refuse(key, f"{network} trusts every address", "Name only the proxy's addresses.")


def require_language(key: str, language: str) -> None:
    """Refuse a value that is not a language tag (RFC 5646)."""
    if not _LANGUAGE.fullmatch(language):
        refuse(key, f"{language!r} is not a language tag such as en or pt-BR")


def require_redis_url(key: str, url: Secret | None, *, needed: bool) -> None:
    """Refuse a URL that is not of Redis, and a missing one if it is needed."""
    if url is None:
        if needed:
            refuse(key, "must be set", 'Write { file = "..." } with redis://host:6379/0 in it.')
    elif url.reveal() and not _REDIS_URL.fullmatch(url.reveal()):
        refuse(key, "must be the URL of a Redis, such as rediss://host:6379/0")


def require_plugins(enabled: tuple[str, ...], configured: Iterable[str]) -> None:
    """Refuse repeated plugins, malformed names, and settings of plugins that are not enabled."""
    for name in enabled:
        if not _PLUGIN_NAME.fullmatch(name) or enabled.count(name) > 1:
            refuse("enabled", f"{name!r} is named twice or is not a plugin's name")
    for name in configured:
        if name not in enabled:
            refuse(
                f"settings.{name}",
                "this plugin is not enabled",
                "Add it to plugins.enabled or remove its table.",
            )


def require_strong_secret(key: str, value: bytes) -> None:
    """Refuse a secret of fewer than 32 bytes, or one that is obviously not random."""
    if len(value) < 32 or len(set(value)) < 8:  # noqa: PLR2004 - 256 bits; 32 random bytes show about 30 values
        refuse(
            key,
            "the secret must be at least 32 random bytes",
            "Make one with: openssl rand -hex 32",
        )
