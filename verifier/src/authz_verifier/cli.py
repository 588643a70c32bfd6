"""The command `authz-verifier`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from ssl import SSLContext, create_default_context

import httpx

from authz_verifier import __version__
from authz_verifier.errors import ConfigurationError
from authz_verifier.probing.report import FORMATS, has_findings, render
from authz_verifier.probing.run import Target, has_ceased, run_probe
from authz_verifier.probing.sources import DEFAULT_TIMEOUT_SECONDS, SourceOptions, open_source

_EXAMPLE = """\
exit status: 0 every attack was refused, 1 some were accepted or made the API fail, 2 no probe

example:
  authz-verifier probe https://api.example.org/mapper/link --method POST --body '{}' \\
    --token-from client --issuer https://auth.example.org --client-id ministry \\
    --client-secret-file ministry.secret --scope mapper/link
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _probe(options)
    except (ConfigurationError, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        _warn(str(error) or type(error).__name__)
        return 2


def _warn(text: str) -> None:
    print(f"authz-verifier: {text}", file=sys.stderr)  # noqa: T201 - a command's output


def _probe(options: argparse.Namespace) -> int:
    source_options = _source_options(options)
    source = open_source(options.token_from, source_options)
    pairs = [each.partition("=") for each in options.refused]
    if not all(name and name.isprintable() for name, _, _ in pairs):
        raise ConfigurationError("--refused: use NAME=SOURCE with a printable name")
    target = Target(
        url=options.url,
        method=options.method.upper(),
        body=options.body,
        options=source_options,
        named={name: open_source(written, source_options).token() for name, _, written in pairs},
    )
    results = run_probe(target, source)
    if has_ceased(results):
        _warn(f"{target.url} ceased to respond, so that the probe ended early")
    text = render(results, options.url, options.format)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return int(has_findings(results, strict=options.strict))


def _source_options(options: argparse.Namespace) -> SourceOptions:
    secret: Path | None = options.client_secret_file
    return SourceOptions(
        issuer=options.issuer,
        client_id=options.client_id,
        client_secret=secret.read_text(encoding="utf-8").strip() if secret else "",
        scope=options.scope,
        audience=options.audience,
        kid=options.kid,
        timeout_seconds=options.timeout,
        ssl_context=_read_authority(options.ca_file) if options.ca_file else None,
    )


def _read_authority(path: str) -> SSLContext:
    try:
        return create_default_context(cafile=path)
    except OSError as error:
        raise ConfigurationError(f"--ca-file {path}: {error}") from error


def _seconds(text: str) -> float:
    """Return a time limit.

    Raises:
        ValueError: it is not a number above 0.
    """
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError("not a time limit")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("authz-verifier", description="Checks access tokens in APIs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    probe = commands.add_parser(
        "probe",
        help="send hostile tokens to an API",
        description="Sends hostile tokens and proofs to an API, and reports what it accepts.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    probe.add_argument("url", help="an address of the API that needs a token")
    add = probe.add_argument
    add(
        "--token-from",
        required=True,
        metavar="SOURCE",
        help=(
            "where sound tokens come from: env:NAME, file:PATH, - (standard input), client (client "
            "credentials), or key:PATH (the private key of an issuer that the API trusts in a test)"
        ),
    )
    add("--method", default="GET", help="method of the requests [GET]")
    add("--body", default="", help="JSON body of the requests")
    add("--issuer", default="", help="authorization server, for client and key")
    add("--client-id", default="", help="client, for client")
    add("--client-secret-file", type=Path, help="file with its secret")
    add("--scope", default="", help="scope of the tokens, for client and key")
    add("--audience", default="", help="identifier of the API, for key")
    add("--kid", default="", help="id of the key, for key [its thumbprint]")
    add(
        "--refused",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help=("a further token that the API must refuse, such as expired=file:PATH"),
    )
    add(
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT_SECONDS,
        help="seconds for a request [10]",
    )
    add("--ca-file", help="certificate authority of the API and the issuer, or a certificate")
    add("--format", choices=FORMATS, default="text", help="format of the report [text]")
    add("--output", type=Path, help="file of the report [standard output]")
    add("--strict", action="store_true", help="exit with 1 for lax results too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
