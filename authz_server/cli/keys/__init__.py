"""``keys``: rotate, revoke and examine the signing keys, with one module for each command."""

from authz_server.cli.commands import LazyCommands

_COMMANDS = {
    "init": (
        "authz_server.cli.keys.init:init",
        "Make the first keys of rings that have none.",
    ),
    "status": (
        "authz_server.cli.keys.status:status",
        "Show each ring: its keys, backend, nodes and plans.",
    ),
    "list": (
        "authz_server.cli.keys.list:list_",
        "List the signing keys of every ring.",
    ),
    "rotate": (
        "authz_server.cli.keys.rotate:rotate",
        "Create the next key of a ring.",
    ),
    "activate": (
        "authz_server.cli.keys.activate:activate",
        "Let a published key sign, now or later.",
    ),
    "taint": (
        "authz_server.cli.keys.taint:taint",
        "Stop a key from signing; its tokens stay valid.",
    ),
    "revoke": (
        "authz_server.cli.keys.revoke:revoke",
        "Withdraw a key and refuse its tokens.",
    ),
    "freeze": (
        "authz_server.cli.keys.freeze:freeze",
        "Stop the scheduled changes of a ring.",
    ),
    "unfreeze": (
        "authz_server.cli.keys.unfreeze:unfreeze",
        "Resume the scheduled changes of a ring.",
    ),
    "move": (
        "authz_server.cli.keys.move:move",
        "Let another ring sign in the place of RING.",
    ),
    "tick": (
        "authz_server.cli.keys.tick:tick",
        "Apply the changes that are due, once or at intervals.",
    ),
    "prune": (
        "authz_server.cli.keys.prune:prune",
        "Remove keys that no token needs from the JWKS.",
    ),
    "destroy": (
        "authz_server.cli.keys.destroy:destroy",
        "Delete old private keys permanently.",
    ),
    "policy": (
        "authz_server.cli.keys.policy:policy",
        "Print least-privilege policies for the Vaults.",
    ),
    "doctor": (
        "authz_server.cli.keys.doctor:doctor",
        "Examine rings, clock, events and the Vaults.",
    ),
    "drill": (
        "authz_server.cli.keys.drill:drill",
        "Rehearse an emergency revocation.",
    ),
    "audit": (
        "authz_server.cli.keys.audit:audit",
        "Compare audit records with those of the Vaults.",
    ),
}

keys = LazyCommands(
    "keys", help="Rotate, revoke and examine the signing keys.", lazy_commands=_COMMANDS
)
