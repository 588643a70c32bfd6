"""``keys status`` as one HTML file: the values for ``templates/status.html``."""

from collections.abc import Sequence

from authz_server.cli.keys.status_text import facts_of, warnings
from authz_server.cli.keys.templates import render
from authz_server.operations.keys.calendar.legend import MARKS
from authz_server.operations.keys.calendar.svg import render_svg
from authz_server.operations.keys.status import RingReport

_KEY_COLUMNS = {
    "version": "Version",
    "kid": "Key id",
    "state": "State",
    "published_at": "Published",
    "activate_at": "Signs from",
    "stopped_at": "Stopped",
    "remove_after": "Leaves the JWKS",
    "revoked_at": "Revoked",
}


def render_html(reports: Sequence[RingReport], *, issuer: str, at: str) -> str:
    """Return the page.

    Args:
        reports: the reports of the rings.
        issuer: the issuer.
        at: the time of the reports.
    """
    rings = [
        {
            "name": report.status.ring,
            "status": report.status,
            "warnings": warnings(report.status),
            "facts": facts_of(report.status),
            "picture": render_svg([report.calendar], f"{report.status.ring}-", legend=False),
        }
        for report in reports
    ]
    return render(
        "status.html", rings=rings, issuer=issuer, at=at, key_columns=_KEY_COLUMNS, marks=MARKS
    )
