"""``demo``: run a server on loopback and show its steps."""

import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import click

from authz_server.cli.commands import Command
from authz_server.cli.demo.chromium import BrowserError
from authz_server.cli.demo.console_walk import walk_console
from authz_server.cli.demo.site import DemoError, demo_site
from authz_server.cli.demo.tour import CLIENT_ID, RESOURCE_SERVER_ID, StepFailedError, Tour


@click.command(
    "demo", cls=Command, here="it starts a server of its own", example="authz-server demo --once"
)
@click.option("--once", is_flag=True, help="Stop after the run instead of serving until Ctrl-C.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="The folder of the run; files of an earlier run are replaced.",
)
def demo(once: bool, directory: Path) -> None:
    """Show a token's life on a server of its own, from nothing.

    Each step is printed as the curl command that repeats it, with the server's real answer. The
    run fails unless every answer is the expected one. Its credentials are for this run only.
    """
    # A shell that starts the demo in the background makes it ignore SIGINT.
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    try:
        with demo_site(directory, click.echo) as places:
            Tour(places, click.echo).run()
            click.echo("\nEvery step had its expected result.")
            if once:
                walk_console(directory, places.console_link, _shown(), click.echo)
            click.echo(_NEXT.format(activate=Path(sys.prefix, "bin", "activate")))
            if not once:
                click.echo(_CONSOLE.format(link=places.console_link))
                _keep_serving(places.issuer, places.mapper_url)
    except (BrowserError, DemoError, StepFailedError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.Abort from None


_CONSOLE = """
The console, for a browser on this machine: the link makes a passkey, once, within 15 minutes.
  {link}
"""
_NEXT = """
Next, README.md from "1. Run it for real", in a folder of your own:
  . {activate}
  authz-server init               makes an installation of your own
  authz-server keys status        in it, shows the signing keys and when they rotate
Or here:
  make demo-rotation QUICK=1      shows four rotations in a real OpenBao under traffic
"""


def _shown() -> dict[str, str]:
    """Return what the walk through the console shows."""
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
    return {"client": CLIENT_ID, "server": RESOURCE_SERVER_ID, "moment": moment}


def _keep_serving(issuer: str, mapper_url: str) -> None:
    click.echo(f"The server runs at {issuer}, the mapper API at {mapper_url}; Ctrl-C ends both.")
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()
    click.echo("Ending.")


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
