"""The command `authz-verifier`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from ssl import create_default_context

import httpx

from authz_verifier import __version__
from authz_verifier.errors import ConfigurationError
from authz_verifier.probing.report import FORMATS, has_findings, render
from authz_verifier.probing.run import Target, run_probe
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
        print(f"authz-verifier: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 2


def _probe(options: argparse.Namespace) -> int:
    source_options = _source_options(options)
    source = open_source(options.token_from, source_options)
    pairs = [each.partition("=") for each in options.refused]
    target = Target(
        url=options.url,
        method=options.method.upper(),
        body=options.body,
        options=source_options,
        named={name: open_source(written, source_options).token() for name, _, written in pairs},
    )
    results = run_probe(target, source)
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
        ssl_context=create_default_context(cafile=options.ca_file) if options.ca_file else None,
    )


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
    add("--timeout", type=float, default=DEFAULT_TIMEOUT_SECONDS, help="seconds for a request [10]")
    add("--ca-file", help="certificate authority of the API and the issuer, or a certificate")
    add("--format", choices=FORMATS, default="text", help="format of the report [text]")
    add("--output", type=Path, help="file of the report [standard output]")
    add("--strict", action="store_true", help="exit with 1 for lax results too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
