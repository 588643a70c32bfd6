"""``keys``: the signing keys, one module for each kind of command."""

from authz_server.cli.commands import Commands, add_all
from authz_server.cli.keys.audit import audit
from authz_server.cli.keys.doctor import doctor
from authz_server.cli.keys.drill import drill
from authz_server.cli.keys.first_keys import init
from authz_server.cli.keys.holding import freeze, unfreeze
from authz_server.cli.keys.listing import list_
from authz_server.cli.keys.moving_on import activate, move, rotate
from authz_server.cli.keys.policy import policy
from authz_server.cli.keys.removal import destroy, prune
from authz_server.cli.keys.status import status
from authz_server.cli.keys.ticking import tick
from authz_server.cli.keys.withdrawal import revoke, taint

keys = add_all(
    Commands("keys", help="Signing keys."),
    [
        init,
        status,
        list_,
        rotate,
        activate,
        taint,
        revoke,
        freeze,
        unfreeze,
        move,
        tick,
        prune,
        destroy,
        policy,
        doctor,
        drill,
        audit,
    ],
)
