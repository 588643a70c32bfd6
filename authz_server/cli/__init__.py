"""The command line: one module for each noun, one sentence for each error."""


def main() -> None:
    """Run ``authz-server`` with the process's arguments."""
    # Each worker process imports this package for `cli.worker` and has no use for the commands.
    from authz_server.cli.root import main as run  # noqa: PLC0415

    run()
