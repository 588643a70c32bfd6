"""The options that commands of ``keys`` share."""

from collections.abc import Callable
from typing import Any

import click

from authz_server.cli.output import json_option

MAXIMUM_REASON_CHARACTERS = 500
#: For commands that take a key's id; one of 64 begins with a hyphen, like an option.
TAKES_KEY_ID: dict[str, Any] = {"ignore_unknown_options": True}
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _checked_reason(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    if value is None:
        raise click.MissingParameter(ctx=context, param=parameter)
    reason = value.strip()
    if not reason.isprintable() or not 1 <= len(reason) <= MAXIMUM_REASON_CHARACTERS:
        raise click.BadParameter(f"use 1 to {MAXIMUM_REASON_CHARACTERS} printable characters")
    return reason


def reason_option(default: str | None = None) -> Decorator:
    """Return the option ``--reason``, which is required if there is no default."""
    return click.option(
        "--reason",
        required=default is None,
        default=default,
        show_default=default is not None,
        callback=_checked_reason,
        help="The reason, which is recorded.",
    )


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print the plan with its times; change nothing."
)


def order_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every change: ``--dry-run`` and ``--json``."""
    return dry_run_option(json_option(function))


yes_option = click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
