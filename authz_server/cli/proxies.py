"""Check the option for the proxies in front of the server, or ask for them."""

import sys

import click

from authz_server.settings.constraints import RuleError, refuse_every_address, require_networks


def check_proxies(
    _context: click.Context, _parameter: click.Parameter, networks: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the networks of an option; BadParameter if one is malformed or has every address."""
    return _checked(networks)


def ask_for_proxies() -> tuple[str, ...]:
    """Ask for the proxies in front; return their addresses and networks, empty without one.

    The question is repeated after a malformed answer.
    """
    question = "Does a reverse proxy with TLS stand in front of the server?"
    if not click.confirm(question, default=True, err=True):
        return ()
    networks: tuple[str, ...] = click.prompt(
        "IP addresses or networks that it connects from, separated by blanks",
        default="127.0.0.1",
        value_proc=_read_answer,
        err=True,
    )
    return networks


def is_at_terminal() -> bool:
    """Return whether a person can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _read_answer(text: str) -> tuple[str, ...]:
    networks = tuple(text.replace(",", " ").split())
    if not networks:
        raise click.BadParameter("Name at least one address.")
    return _checked(networks)


def _checked(networks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        require_networks("trusted_proxies", networks)
        refuse_every_address("trusted_proxies", networks)
    except RuleError as error:
        raise click.BadParameter(f"{error.problem}. {error.remedy}".strip()) from error
    return networks
