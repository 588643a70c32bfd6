"""The command line: one module for each noun, one sentence for each error."""


def main() -> None:
    """Run ``authz-server`` with the process's arguments."""
    # Importing one module of this package does not load all commands.
    from authz_server.cli.root import main as run  # noqa: PLC0415

    run()
