"""``apply``: make what is registered agree with declarative files."""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, echo_lines, echo_status, json_option, print_json
from authz_server.cli.plain_text import plain_value, shown
from authz_server.operations.declarative.apply import apply_declaration
from authz_server.operations.declarative.document import read_declaration
from authz_server.operations.declarative.plan import FieldChange, Plan, PlannedChange

_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_SECRETS = {
    "generated": "a secret is generated",
    "imported": "the secret in the folder is imported",
}
# The effect on a client's tokens; True: it is enabled, False: it is disabled.
_TOKENS = {
    True: "its earlier tokens are active again until they expire",
    False: "its tokens are inactive, and active again when it is enabled before they expire",
}


@click.command(
    "apply",
    cls=Command,
    remote=True,
    example="authz-server apply registrations.toml --prune --dry-run",
)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(path_type=Path),
)
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option(
    "--prune",
    is_flag=True,
    help="Remove what the files do not have, in the sections that they have.",
)
@click.option("--yes", is_flag=True, help="Apply the plan without a question.")
@click.option(
    "--secret-directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Generate a secret for each new client that needs one, in a new file (0600) of this "
    "folder.",
)
@click.option(
    "--imported-secrets",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Import the secrets of new clients from the files of this folder.",
)
@json_option
@pass_invocation
def apply(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    files: tuple[Path, ...],
    dry_run: bool,
    prune: bool,
    yes: bool,
    secret_directory: Path | None,
    imported_secrets: Path | None,
    as_json: bool,
) -> None:
    """Make what is registered agree with files.

    The files have scopes, resource servers, clients, programmes and operators. The plan
    shows what is added, changed and removed, and is applied in one transaction after a question.
    Entries that no file has stay, unless --prune is given. The secrets of existing clients stay as
    they are. A second run changes nothing. A folder stands for the files *.toml and *.json in it.
    """
    declaration = read_declaration(files)
    options: dict[str, Any] = {
        "actor": invocation.actor,
        "prune": prune,
        "secret_directory": secret_directory,
        "imported_secrets": imported_secrets,
    }
    with invocation.operations() as carry_out:
        expected = None
        if dry_run or not yes:
            expected = carry_out(apply_declaration, declaration, dry_run=True, **options)
            _show(expected, as_json=as_json)
            if dry_run or not expected.changes:
                return
            _ask()
        plan = carry_out(apply_declaration, declaration, expected=expected, **options)
    if expected is None:
        _show(plan, as_json=as_json)
    echo_status("The plan is applied." if plan.changes else "Nothing was changed.")
    if plan.unowned_scopes:
        echo_status(
            "Warning: requests for these scopes are refused until a resource server has them: "
            + ", ".join(plan.unowned_scopes)
        )


def _ask() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("Use --yes to apply the plan where nothing can be asked.")
    click.confirm("Apply this plan?", abort=True, err=True)


def _show(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json(as_record(plan))
        return
    echo_lines(render_plan(plan))


def render_plan(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan: a heading for each entry, and a line for each field."""
    for change in plan.changes:
        yield f"{_SIGNS[change.act]} {change.noun} {shown(change.id)}"
        for field in change.fields:
            yield f"    {field.path}: {_difference(change, field)}"
            if (change.act, change.noun, field.path) == ("change", "client", "enabled"):
                yield f"    ! {_TOKENS[field.after]}"
                command = f"authz-server revoke --client {shown(change.id)}"
                yield f"      `{command}` ends them permanently"
        if change.money_scopes:
            yield f"    ! grants scopes of risk money: {', '.join(change.money_scopes)}"
        if change.secret:
            yield f"    {_SECRETS[change.secret]}"
    if not plan.changes:
        yield "The server agrees with the files: there is nothing to change."
        return
    yield (
        f"Plan: {plan.count('add')} to add, {plan.count('change')} to change, "
        f"{plan.count('remove')} to remove."
    )


def _difference(change: PlannedChange, field: FieldChange) -> str:
    if change.act == "add":
        return _value(field.after)
    before, after = field.before, field.after
    texts = [*(before or []), *(after or [])] if _are_lists(before, after) else []
    if texts and all(isinstance(each, str) for each in texts):
        added = [f"+{shown(each)}" for each in after if each not in before]
        removed = [f"-{shown(each)}" for each in before if each not in after]
        return " ".join([*added, *removed])
    return f"{_value(before)} -> {_value(after)}"


def _are_lists(before: object, after: object) -> bool:
    return isinstance(before, list) and isinstance(after, list)


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, datetime):
        return str(plain_value(value))
    return shown(json.dumps(value, ensure_ascii=False, default=plain_value))
