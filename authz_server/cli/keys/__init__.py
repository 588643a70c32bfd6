"""``keys``: the signing keys; one module for each command."""

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
        "Have a ring's backend make the next version.",
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
        "Hold a ring as it is.",
    ),
    "unfreeze": (
        "authz_server.cli.keys.unfreeze:unfreeze",
        "Let a frozen ring change again.",
    ),
    "move": (
        "authz_server.cli.keys.move:move",
        "Let another ring sign in the place of RING.",
    ),
    "tick": (
        "authz_server.cli.keys.tick:tick",
        "Do what is due, once or at intervals.",
    ),
    "prune": (
        "authz_server.cli.keys.prune:prune",
        "Take keys out of the JWKS that no token needs.",
    ),
    "destroy": (
        "authz_server.cli.keys.destroy:destroy",
        "Delete old private keys for good.",
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
        "The records of signatures.",
    ),
}

keys = LazyCommands("keys", help="Signing keys.", lazy_commands=_COMMANDS)
