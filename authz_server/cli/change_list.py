"""``changes list`` and ``changes show``: the changes that need a second person."""

import json
from collections.abc import Iterator
from typing import Any

import click

from authz_server.cli.commands import Command
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import (
    as_record,
    echo_lines,
    json_option,
    print_json,
    print_record,
    print_rows,
)
from authz_server.cli.plain_text import plain_value
from authz_server.operations.changes import ChangeFilters, get_change, list_changes

_WAITING = ("pending", "unconfirmed")
_COLUMNS = {
    "id": "Id",
    "state": "State",
    "kind": "Kind",
    "acts": "Acts",
    "subject": "Subject",
    "requested_by": "Requested by",
    "requested_at": "Requested at",
    "expires_at": "Until",
}
_NARROW = {"id": "Id", "state": "State", "acts": "Acts", "subject": "Subject"}


@click.command("list", cls=Command, remote=True, example="authz-server changes list")
@click.option("--all", "everything", is_flag=True, help="List settled changes too.")
@json_option
@pass_invocation
def list_(invocation: Invocation, everything: bool, as_json: bool) -> None:
    """List the changes that wait for a second person.

    A pending change waits for an approval. An unconfirmed one was done without an approval, and
    waits for a confirmation. The newest comes first.
    """
    filters = ChangeFilters(states=() if everything else _WAITING)
    with invocation.operations() as carry_out:
        rows = carry_out(list_changes, filters)
    print_rows(rows, _COLUMNS, as_json=as_json, narrow=_NARROW)


@click.command(
    "show", cls=Command, remote=True, example="authz-server changes show 5f2c9d0a71b3e864"
)
@click.argument("id")
@json_option
@pass_invocation
def show(invocation: Invocation, id: str, as_json: bool) -> None:  # noqa: A002
    """Show a change with its diff.

    The diff has the values before and after. The arguments are those of the operation that the
    approval carries out.
    """
    with invocation.operations() as carry_out:
        change = carry_out(get_change, id)
    record = dict(as_record(change))
    if as_json:
        print_json(record)
        return
    diff = record.pop("diff")
    print_record(record, as_json=False)
    echo_lines(_diff_lines(diff))


def _diff_lines(diff: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    if not isinstance(diff, dict):
        diff = {"changes": {"before": None, "after": diff}}
    for name, values in diff.items():
        if isinstance(values, dict) and values.keys() == {"before", "after"}:
            yield f"{name}:"
            yield f"  - {_in_text(values['before'])}"
            yield f"  + {_in_text(values['after'])}"
        else:
            yield f"{name}: {_in_text(values)}"


def _in_text(value: object) -> str:
    if value in (None, "", []):
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=plain_value)
