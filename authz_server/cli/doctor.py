"""``doctor``: check settings and clients against security profiles."""

from collections.abc import Iterator

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_lines, json_option, print_json
from authz_server.operations.profiles import PROFILES, ProfileReport, check_profiles
from authz_server.settings.profiles import Profile
from keys.plurals import counted

NOT_MET = 1


@click.command(
    "doctor",
    cls=Command,
    here="it reads the settings file and the database",
    example="authz-server doctor --profile fapi2",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    type=click.Choice(PROFILES),
    show_default="those of the settings, else all",
    help="A profile to check. Repeatable.",
)
@click.option("--strict", is_flag=True, help="Fail for recommendations too.")
@json_option
@pass_invocation
def doctor(
    invocation: Invocation, profiles: tuple[Profile, ...], strict: bool, as_json: bool
) -> None:
    """Check settings and clients against security profiles.

    Every rule is listed that the settings, a client or a resource server does not meet, with the
    section that states it. Nothing is changed. The exit status is 1 if a rule is not met.
    """
    with invocation.services() as services:
        report = check_profiles(services, profiles)
    met = not report.findings if strict else report.is_met
    if as_json:
        print_json({**as_record(report), "met": met})
    else:
        echo_lines(_lines(report))
    click.get_current_context().exit(0 if met else NOT_MET)


def _lines(report: ProfileReport) -> Iterator[str]:
    for finding in report.findings:
        yield f"{finding.level.upper():<7} {finding.profile:<12} {finding.subject}"
        yield f"{'':<7} {finding.problem} ({finding.source})"
    names = ", ".join(report.profiles)
    broken = sum(finding.level == "must" for finding in report.findings)
    advised = len(report.findings) - broken
    if report.findings:
        yield ""
    yield f"Checked the settings, clients and resource servers ({report.checked}) against {names}:"
    yield f"{counted(broken, 'rule')} and {counted(advised, 'recommendation')} are not met."
