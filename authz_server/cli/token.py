"""``token``: look into one token, or end it."""

import codecs
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from authz_server.assembly import Services
from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import json_option, print_change, print_record, timestamp
from authz_server.database.orm import transaction
from authz_server.settings import LONGEST_LIFETIME_SECONDS
from authz_server.tokens.verification import VerifiedAccessToken
from authz_server.waiting import run

MAXIMUM_TOKEN_CHARACTERS = 16_384
#: The longest ``jti`` that a token of this server can have.
MAXIMUM_JTI_CHARACTERS = 64
_NO_TOKEN = "no token of this server that is in force: unknown, altered or expired"  # noqa: S105

token_source = click.argument(
    "file", type=click.Path(dir_okay=False, exists=True, path_type=Path), required=False
)


def read_token(file: Path | None) -> str:
    """Return the token from the file, else from standard input, asked for at a terminal."""
    if file is not None:
        content = file.read_bytes()[: MAXIMUM_TOKEN_CHARACTERS + 1]
    elif sys.stdin.isatty():
        content = str(click.prompt("Token", hide_input=True)).encode()
    else:
        content = sys.stdin.buffer.read(MAXIMUM_TOKEN_CHARACTERS + 1)
    text = content.removeprefix(codecs.BOM_UTF8).decode("ascii", errors="replace").strip()
    if not text or len(text) > MAXIMUM_TOKEN_CHARACTERS:
        raise click.ClickException("There is no token to read: write it to the file or to stdin.")
    return text


def find_verified(services: Services, presented: str) -> VerifiedAccessToken | None:
    """Return what the token says if it is ours and in force, by what is kept now."""
    services.key_rings.refresh()
    services.feed.poll()
    return run(services.verifier.find_verified(presented))


def describe_token(services: Services, presented: str) -> dict[str, Any]:
    """Return a token as ``inspect`` prints it: its state, then what it says."""
    verified = find_verified(services, presented)
    if verified is None:
        return {"state": _NO_TOKEN}
    claims = verified.claims
    return {
        "state": _state(services, presented, verified),
        "client_id": claims.client_id,
        "scope": claims.scope,
        "audience": list(claims.audience),
        "issued_at": timestamp(datetime.fromtimestamp(claims.iat, UTC)),
        "expires_at": timestamp(datetime.fromtimestamp(claims.exp, UTC)),
        "jti": claims.jti,
        "kid": verified.kid,
        "format": "jwt" if verified.kid else "reference",
    }


def _state(services: Services, presented: str, verified: VerifiedAccessToken) -> str:
    claims = verified.claims
    if run(services.revocation_state.is_revoked(claims.jti, verified.kid, claims)):
        return "revoked"
    client = services.directory.find(claims.client_id)
    if client is None or not client.is_usable(services.clock().timestamp()):
        return "inactive: its client is disabled, expired or deleted"
    if run(services.introspection.find_active(client, presented)) is None:
        return "inactive: its client no longer has any of its scopes"
    return "active"


@click.command("inspect", cls=Command)
@token_source
@json_option
@pass_invocation
def inspect(invocation: Invocation, file: Path | None, as_json: bool) -> None:
    """Say what a token is worth now, and what it says.

    The token comes from FILE, else from standard input: never as an argument, which others can see.
    """
    presented = read_token(file)
    with invocation.services() as services:
        print_record(describe_token(services, presented), as_json=as_json)


@click.command("revoke", cls=Command)
@token_source
@click.option("--jti", help="Revoke by this id, as audit records give it, instead of the token.")
@json_option
@pass_invocation
def revoke(invocation: Invocation, file: Path | None, jti: str | None, as_json: bool) -> None:
    """Revoke one token.

    The token comes from FILE, else from standard input. When the command returns, introspection on
    every node says that it is inactive.
    """
    if jti is not None and file is not None:
        raise click.UsageError("Name a file or --jti, not both.")
    presented = read_token(file) if jti is None else ""
    with invocation.services() as services:
        record = _subject(services, presented) if jti is None else _by_id(services, jti)
        with transaction() as session:
            added = services.revocations.revoke_token(session, **record, actor=invocation.actor)
    record["expires_at"] = timestamp(record["expires_at"])
    sentence = f"The token {record['jti']} {'is' if added else 'was already'} revoked."
    print_change(record | {"changed": added}, sentence, as_json=as_json)


def _subject(services: Services, presented: str) -> dict[str, Any]:
    verified = find_verified(services, presented)
    if verified is None:
        raise click.ClickException(f"It is {_NO_TOKEN}. There is nothing to revoke.")
    claims = verified.claims
    expires_at = datetime.fromtimestamp(claims.exp, UTC)
    return {"jti": claims.jti, "client_id": claims.client_id, "expires_at": expires_at}


def _by_id(services: Services, jti: str) -> dict[str, Any]:
    """Return what is known from the id alone: it can live no longer than the longest life."""
    if not jti.isascii() or not jti.isprintable() or not 1 <= len(jti) <= MAXIMUM_JTI_CHARACTERS:
        raise click.UsageError(f"--jti: use 1 to {MAXIMUM_JTI_CHARACTERS} ASCII characters.")
    # Not the present setting: tokens made under a longer one live on when it is lowered.
    longest = timedelta(seconds=LONGEST_LIFETIME_SECONDS)
    return {"jti": jti, "client_id": "", "expires_at": services.clock() + longest}


token = add_all(Commands("token", help="One token: look into it, revoke it."), [inspect, revoke])
