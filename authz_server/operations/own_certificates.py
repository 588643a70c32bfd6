"""Check the times of the certificates that the server shows to its clients."""

import ssl
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from authz_server.assembly import utc_now
from authz_server.serving.tls import read_tls_files, read_validity
from authz_server.settings import Settings, SettingsError

#: How long before the end of a certificate it is warned of.
SOON = timedelta(days=14)
_REMEDY = "Replace the file, and send the server SIGHUP."


def find_certificate_faults(settings: Settings) -> Iterator[SettingsError]:
    """Yield the certificates that clients refuse now, because of their times.

    One that cannot be read at all is found by the check of TLS.
    """
    now = utc_now()
    for _, key, not_before, not_after in _validities(settings):
        problem = ""
        if not_after <= now:
            problem = f"the certificate, or one of its chain, has ended on {not_after:%Y-%m-%d}"
        elif not_before > now:
            problem = f"the certificate, or one of its chain, is valid from {not_before:%Y-%m-%d}"
        if problem:
            yield SettingsError(f"{problem}: clients refuse it", key=key, remedy=_REMEDY)


def find_ending_certificates(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield key, problem and remedy of each certificate that ends within :data:`SOON`."""
    now = utc_now()
    for _, key, not_before, not_after in _validities(settings):
        if not_before <= now < not_after <= now + SOON:
            problem = (
                f"The certificate, or one of its chain, ends on {not_after:%Y-%m-%d}: clients "
                "refuse it then."
            )
            yield key, problem, _REMEDY


def find_certificate_ends(settings: Settings) -> Mapping[str, float]:
    """Return when each certificate ends, in seconds since 1970, by listener."""
    return {role: ends.timestamp() for role, _, _, ends in _validities(settings)}


def _validities(settings: Settings) -> Iterator[tuple[str, str, datetime, datetime]]:
    for role, listener in settings.listeners().items():
        try:
            files = read_tls_files(listener)
            validity = None if files is None else read_validity(files.certificate)
        except (OSError, ValueError, ssl.SSLError):
            continue
        if validity is not None:
            table = "server" if role == "public" else role
            yield role, f"{table}.tls_certificate", *validity
