"""``keys status``: the rings at a glance."""

from pathlib import Path

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.keys.calendar_svg import render_svg
from authz_server.cli.keys.composition import key_operations, require_ring
from authz_server.cli.keys.ring_report import report_ring
from authz_server.cli.keys.status_html import render_html
from authz_server.cli.keys.status_text import print_status
from authz_server.cli.output import echo_status, json_option, print_json, timestamp

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("status", cls=Command)
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
    """Show each ring: calendar, age, backend, nodes, readers, and what is overdue.

    Nothing is changed. The Vaults are asked as the operator where VAULT_TOKEN is set, else as the
    rotator, else as the server.
    """
    with key_operations(invocation, "tick", looking=True) as operations:
        rings = [require_ring(operations, ring)] if ring else operations.rings()
        reports = [report_ring(operations, each) for each in rings]
        issuer = operations.services.settings.issuer
        at = timestamp(operations.now()) or ""
        offset = operations.services.key_store.clock_offset_seconds()
        tolerance = operations.services.settings.keys.clock_tolerance_seconds
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
                "asked_as": operations.identity,
                "store_clock_offset_seconds": round(offset, 3),
                "rings": [report.fields for report in reports],
            }
        )
        return
    for report in reports:
        print_status(report)
    if abs(offset) > tolerance and not reports:
        echo_status(f"ALARM this machine's clock is {offset:+.1f} s from the database's.")
    if not reports:
        click.echo("There is no ring yet: run `authz-server keys init`.")
