"""Warnings about settings that can be used but do not do what an operator expects."""

from dataclasses import asdict, dataclass

from authz_server.settings import Settings


@dataclass(frozen=True, slots=True)
class SettingsWarning:
    """A setting to look at, or what is registered.

    Attributes:
        key: the dotted path of the setting, or the kind of what is registered.
        problem: what happens as the settings are, in whole sentences.
        remedy: which value mends it.
    """

    key: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem} {self.remedy}"

    def as_record(self) -> dict[str, str]:
        """Return the fields by name, for JSON."""
        return asdict(self)


def find_warnings(settings: Settings) -> tuple[SettingsWarning, ...]:
    """Return the warnings about settings that were checked already; empty where there are none."""
    server = settings.server
    # In production the issuer is https: without a certificate of its own, the server listens on
    # loopback for a proxy that speaks TLS.
    if settings.environment == "development" or server.tls_certificate or server.trusted_proxies:
        return ()
    return (
        SettingsWarning(
            "server.trusted_proxies",
            "The issuer is https and the server has no TLS certificate, so a proxy must stand in "
            "front, but no proxy is trusted. All clients then share the proxy's address in records "
            "and in throttling.",
            'Name the address from which the proxy connects, such as ["127.0.0.1"].',
        ),
    )
