"""`authz-server` that asks transit for each signature by itself, to see what batching is worth.

The server starts its workers as new interpreters, which load this module again before anything
else: so the switch is here, at the top.
"""

from authz_server.cli import main
from keys.backends import vault_transit
from keys.backends.vault_batching import Fleet

vault_transit.FLEET = Fleet(flights=64, seats=1)

if __name__ == "__main__":
    main()
