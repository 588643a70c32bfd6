"""``keys status``: show each ring."""

from pathlib import Path

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.context import key_context
from authz_server.cli.keys.status_html import render_html
from authz_server.cli.keys.status_text import print_status
from authz_server.cli.output import as_record, echo_status, json_option, print_json
from authz_server.cli.plain_text import timestamp
from authz_server.operations.keys.calendar.svg import render_svg
from authz_server.operations.keys.status import RingsReport, report_rings

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    "status", cls=Command, remote=True, example="authz-server keys status --html status.html"
)
@click.argument("ring", required=False)
@click.option("--svg", "svg_file", type=_FILE, help="Also draw the calendar into this file.")
@click.option("--html", "html_file", type=_FILE, help="Also write a page for a change ticket.")
@json_option
@pass_invocation
def status(
    invocation: Invocation,
    ring: str | None,
    svg_file: Path | None,
    html_file: Path | None,
    as_json: bool,
) -> None:
    """Show each ring: its keys, backend, nodes and plans.

    It prints a calendar, the age of the key, the readers of the JWKS, the latest changes, and what
    is overdue. Nothing is changed. A Vault is read as the operator where VAULT_TOKEN is set, or as
    the rotator, or as the server.
    """
    found = _report(invocation, ring)
    reports, issuer, at = found.rings, found.issuer, timestamp(found.at) or ""
    offset = found.store_clock_offset_seconds
    if svg_file is not None:
        drawn = render_svg([report.calendar for report in reports])
        svg_file.write_text(drawn, encoding="utf-8")
    if html_file is not None:
        html_file.write_text(render_html(reports, issuer=issuer, at=at), encoding="utf-8")
    if as_json:
        print_json(
            {
                "at": at,
                "issuer": issuer,
                "asked_as": found.asked_as,
                "store_clock_offset_seconds": offset,
                "rings": [as_record(report.status) for report in reports],
            }
        )
        return
    for report in reports:
        print_status(report)
    if found.clock_off and not reports:
        echo_status(f"ALARM this machine's clock is {offset:+.1f} s from the database's.")
    if not reports:
        click.echo("There is no ring yet: run `authz-server keys init`.")


def _report(invocation: Invocation, ring: str | None) -> RingsReport:
    if invocation.server:
        with invocation.operations() as carry_out:
            return carry_out(report_rings, ring)
    with key_context(invocation, "tick", looking=True) as context:
        return report_rings(context, ring)
