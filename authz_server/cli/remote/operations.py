"""Carry out operations by the admin API, and find the credentials for it."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from authz_server.cli.remote.api import PREFIX, AdminApi
from authz_server.cli.remote.connection import Connection, RemoteError, Trust
from authz_server.cli.remote.credentials import Credentials, GivenToken
from authz_server.cli.remote.table import find_remote
from authz_server.operations.private_files import without_line_break

P = ParamSpec("P")
T = TypeVar("T")

#: An access token. It is in no option: other users of a machine can read the arguments of its
#: processes.
TOKEN_VARIABLE = "AUTHZ_SERVER_TOKEN"  # noqa: S105 - the name of a variable
_MAXIMUM_BYTES = 65_536
_STDIN = "-"


class RemoteOperations:
    """Carries out operations at a server, each by its requests in :mod:`.table`.

    Args:
        api: the admin API of the server.
    """

    def __init__(self, api: AdminApi) -> None:
        self._api = api

    def __call__(
        self, operation: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return the result of an operation; the server records the caller as its actor.

        Args:
            operation: the operation.
            args: its arguments after the services.
            kwargs: its arguments by name.

        Raises:
            WaitsForApproval: the change waits for an approval.
            OperatorError: the server refuses, or cannot be reached.
        """
        return find_remote(operation)(self._api, *args, **kwargs)


def open_remote_operations(server: str, access: Mapping[str, Any]) -> RemoteOperations:
    """Return the operations of a server.

    Args:
        server: the URL of its management listener.
        access: the values of the options that authenticate the command, by name.

    Raises:
        click.UsageError: the options do not name credentials.
        RemoteError: a value cannot be used.
        OSError: a file cannot be read.
    """
    trust = Trust(
        ca_file=access.get("ca_file"),
        certificate_file=access.get("certificate_file"),
        key_file=access.get("certificate_key_file"),
    )
    if trust.key_file is not None and trust.certificate_file is None:
        raise click.UsageError("--certificate-key-file belongs to --certificate-file.")
    # That of the API, as it is printed, names the listener too.
    listener = server.rstrip("/").removesuffix(PREFIX)
    connection = Connection(listener, "--server", trust)
    return RemoteOperations(AdminApi(connection, _credentials(access, trust)))


def _credentials(access: Mapping[str, Any], trust: Trust) -> Credentials:
    token, token_file = os.environ.get(TOKEN_VARIABLE, ""), access.get("token_file")
    client_id = access.get("client_id")
    ways = [each for each in (token, token_file, client_id) if each]
    if len(ways) != 1:
        raise click.UsageError(
            f"With --server, give an access token (${TOKEN_VARIABLE} or --token-file), or a client"
            " (--client-id with --issuer)."
        )
    if not client_id:
        return GivenToken(_text(_read(str(token_file))) if token_file else token.strip())
    issuer = access.get("issuer")
    secret_file, key_file = access.get("client_secret_file"), access.get("private_key_file")
    by_certificate = trust.certificate_file is not None and not (secret_file or key_file)
    if not issuer or (bool(secret_file) == bool(key_file) and not by_certificate):
        raise click.UsageError(
            "With --client-id, give --issuer, and --client-secret-file, --private-key-file or"
            " --certificate-file."
        )
    # Imported here: it imports the libraries of keys, which a token does not need.
    from authz_server.cli.remote.client_credentials import ClientCredentials  # noqa: PLC0415

    proof: dict[str, Any] = {}
    if secret_file:
        proof = {"secret": _text(_read(str(secret_file)))}
    elif key_file:
        proof = {"key_pem": _read(str(key_file))}
    scope = access.get("scope", "")
    return ClientCredentials(issuer, client_id, scope=scope, trust=trust, **proof)


def _read(name: str) -> bytes:
    """Return the content of a file, or of standard input."""
    if name == _STDIN:
        return sys.stdin.buffer.read(_MAXIMUM_BYTES)
    with Path(name).open("rb") as file:
        return file.read(_MAXIMUM_BYTES)


def _text(content: bytes) -> str:
    try:
        return without_line_break(content).decode()
    except UnicodeDecodeError as error:
        raise RemoteError("A file with credentials is not text.") from error
