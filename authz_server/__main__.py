"""``python -m authz_server``: the same as ``authz-server``."""

from authz_server.cli import main

if __name__ == "__main__":
    main()
