"""``demo``: run a server on loopback and show its steps."""

import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click

from authz_server.cli.commands import Command
from authz_server.cli.demo.site import DemoError, demo_site
from authz_server.cli.demo.tour import StepFailedError, Tour


@click.command("demo", cls=Command, example="authz-server demo --once")
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
            click.echo(_NEXT)
            if not once:
                _keep_serving(places.issuer, places.mapper_url)
    except (DemoError, StepFailedError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.Abort from None


_NEXT = """
Now try, here or in the README's order:
  authz-server init               an installation of your own, which this one is not
  authz-server keys status        in it: the signing keys and when they rotate
  make demo-rotation QUICK=1      four rotations in a real OpenBao under traffic
"""


def _keep_serving(issuer: str, mapper_url: str) -> None:
    click.echo(f"The server goes on at {issuer}, the mapper API at {mapper_url}; Ctrl-C ends both.")
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()
    click.echo("Ending.")


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
