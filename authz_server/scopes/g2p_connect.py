"""The scopes of G2P Connect: one for each operation of its three interfaces, version 1.0.0.

The interfaces define no scopes. The authorization interface lists some as examples, in three
spellings. The canonical name here is an operation's path below its interface, and every other
spelling in the documents is an alias. Two paths need interpretation:

- ``/disburse`` and ``/on-disburse`` have no interface in their path. They become
  ``disburse/disburse`` and ``disburse/on-disburse``, as the examples spell them.
- The mapper's synchronous status is printed as ``/registry/sync/txn/status``, the registry's own
  path. It becomes ``mapper/sync/txn/status``.
"""

from collections.abc import Iterator

from authz_server.scopes.definition import Risk, ScopeDefinition

#: Interface, path below it, risk, and description of each operation.
OPERATIONS: tuple[tuple[str, str, Risk, str], ...] = (
    ("disburse", "disburse", "money", "Start payments by disbursement instructions."),
    ("disburse", "on-disburse", "write", "Deliver the outcome of disbursement instructions."),
    ("disburse", "search", "read", "Search disbursements by their attributes."),
    ("disburse", "on-search", "write", "Deliver the results of a search of disbursements."),
    ("disburse", "txn/status", "read", "Ask for the status of earlier disbursements."),
    ("disburse", "txn/on-status", "write", "Deliver the status of earlier disbursements."),
    ("disburse", "sync/disburse", "money", "Start payments and wait for the outcome."),
    ("disburse", "sync/search", "read", "Search disbursements and wait for the results."),
    ("disburse", "sync/txn/status", "read", "Ask for disbursements' status and wait for it."),
    ("mapper", "link", "write", "Link an id to a financial address."),
    ("mapper", "on-link", "write", "Deliver the outcome of linking."),
    ("mapper", "update", "write", "Change the financial address of an id."),
    ("mapper", "on-update", "write", "Deliver the outcome of a change."),
    ("mapper", "unlink", "write", "Unlink an id from its financial address."),
    ("mapper", "on-unlink", "write", "Deliver the outcome of unlinking."),
    ("mapper", "resolve", "read", "Resolve an id to its financial address."),
    ("mapper", "on-resolve", "write", "Deliver resolved financial addresses."),
    ("mapper", "txn/status", "read", "Ask for the status of earlier mapper transactions."),
    ("mapper", "txn/on-status", "write", "Deliver the status of earlier mapper transactions."),
    ("mapper", "sync/link", "write", "Link an id to a financial address and wait."),
    ("mapper", "sync/update", "write", "Change the financial address of an id and wait."),
    ("mapper", "sync/unlink", "write", "Unlink an id from its financial address and wait."),
    ("mapper", "sync/resolve", "read", "Resolve an id to its financial address and wait."),
    ("mapper", "sync/txn/status", "read", "Ask for mapper transactions' status and wait for it."),
    ("registry", "search", "read", "Search persons in a registry."),
    ("registry", "on-search", "write", "Deliver the results of a search of persons."),
    ("registry", "subscribe", "write", "Subscribe to life events of a registry."),
    ("registry", "on-subscribe", "write", "Deliver the outcome of a subscription."),
    ("registry", "notify", "write", "Notify subscribers of a life event."),
    ("registry", "unsubscribe", "write", "End subscriptions to life events."),
    ("registry", "on-unsubscribe", "write", "Deliver the outcome of ending subscriptions."),
    ("registry", "txn/status", "read", "Ask for the status of earlier registry transactions."),
    ("registry", "txn/on-status", "write", "Deliver the status of earlier registry transactions."),
    ("registry", "sync/search", "read", "Search persons in a registry and wait for the results."),
    (
        "registry",
        "sync/txn/status",
        "read",
        "Ask for registry transactions' status and wait for it.",
    ),
)

# The authorization interface names these two without their interface.
_BARE_NAMES = {"disburse/disburse": "disburse", "disburse/on-disburse": "on-disburse"}


def _aliases(name: str) -> Iterator[str]:
    """Yield the dot form, the form without ``txn``, and the bare name if the documents use one."""
    yield name.replace("/", ".")
    if "/txn/" in name:
        short = name.replace("/txn/", "/")
        yield short
        yield short.replace("/", ".")
    if name in _BARE_NAMES:
        yield _BARE_NAMES[name]


def _callback_partner(interface: str, path: str) -> str | None:
    """Return the other operation of a pair such as ``link`` and ``on-link``, if any."""
    *before, last = path.split("/")
    other = last.removeprefix("on-") if last.startswith("on-") else f"on-{last}"
    partner = "/".join([*before, other])
    return f"{interface}/{partner}" if (interface, partner) in _PATHS else None


_PATHS = frozenset((interface, path) for interface, path, _, _ in OPERATIONS)

CATALOGUE: tuple[ScopeDefinition, ...] = tuple(
    ScopeDefinition(
        name=f"{interface}/{path}",
        description=description,
        interface=interface,
        risk=risk,
        aliases=tuple(_aliases(f"{interface}/{path}")),
        callback_partner=_callback_partner(interface, path),
    )
    for interface, path, risk, description in OPERATIONS
)
