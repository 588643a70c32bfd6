"""The requests for key rings and keys."""

from collections.abc import Iterable
from typing import Any, get_type_hints

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.errors import NotFoundError
from authz_server.operations.key_names import find_beginning, require_chosen
from authz_server.operations.keys.list import KeyView, RingView, find_key, list_keys
from authz_server.operations.keys.orders import apply_order, name_rings, tick_ring
from authz_server.operations.keys.results import (
    KeyChanged,
    OrderResult,
    RingChanged,
    RotationResult,
    WithdrawalResult,
)
from authz_server.operations.keys.status import RingsReport, report_rings
from keys.lifecycle.orders import (
    Activate,
    Destroy,
    Freeze,
    Move,
    Order,
    Prune,
    Revoke,
    Rotate,
    Taint,
    Unfreeze,
)

_READ, _ROTATE, _REVOKE = "keys:read", "keys:rotate", "keys:revoke"
_RESULTS: dict[str, type[OrderResult]] = {
    "rotate": RotationResult,
    "taint": WithdrawalResult,
    "revoke": WithdrawalResult,
}


@carries_out(list_keys)
def _list_keys(api: AdminApi) -> tuple[KeyView, ...]:
    return tuple(
        key
        for ring in _list_rings(api)
        for key in api.list(KeyView, _READ, "rings", ring.name, "keys")
    )


@carries_out(report_rings)
def _report_rings(api: AdminApi, name: str | None = None) -> RingsReport:
    return api.read(RingsReport, _READ, "reports", "keys", ring=name)


@carries_out(find_key)
def _find_key(api: AdminApi, named: str, *, standby: bool = False) -> str:
    keys = _list_keys(api)
    for ring in _list_rings(api):
        if ring.name == named:
            kid = _find_standby(keys, ring) if standby else ring.signing_key
            return require_chosen(named, kid)
    return find_beginning(keys, named)


@carries_out(apply_order)
def _apply_order(
    api: AdminApi,
    order: Order,
    *,
    dry_run: bool = False,
    **control: Any,  # noqa: ANN401 - of the operation; the server has its own
) -> OrderResult:
    del control
    body: dict[str, Any] = {} if isinstance(order, Prune) else {"reason": order.reason}
    permission = _ROTATE
    item: tuple[str, ...]
    match order:
        case Rotate() | Freeze() | Unfreeze() | Prune():
            item = ("rings", order.ring)
        case Move():
            body |= {"successor": order.successor, "at": order.at}
            item = ("rings", order.ring)
        case Destroy():
            permission = _REVOKE
            item = ("rings", order.ring)
        case Activate():
            body |= {"at": order.at, "emergency": order.emergency}
            item = _path_of(api, order.kid)
        case Taint():
            item = _path_of(api, order.kid)
        case Revoke():
            body |= {"all_versions": order.all_versions}
            permission = _REVOKE
            item = _path_of(api, order.kid)
    verb = type(order).__name__.lower()
    answer = api.change("POST", permission, *item, verb, item=item, body=body, dry_run=dry_run)
    return _result(answer)


@carries_out(name_rings)
def _name_rings(api: AdminApi, ring: str | None = None) -> tuple[str, ...]:
    if ring is not None:
        return (api.read(RingView, _READ, "rings", ring).name,)
    return tuple(each.name for each in _list_rings(api))


@carries_out(tick_ring)
def _tick_ring(api: AdminApi, ring: str, *, dry_run: bool = False) -> OrderResult:
    item = ("rings", ring)
    answer = api.change("POST", _ROTATE, *item, "tick", item=item, body={}, dry_run=dry_run)
    return _result(answer)


def _list_rings(api: AdminApi) -> tuple[RingView, ...]:
    return api.list(RingView, _READ, "rings")


def _find_standby(keys: Iterable[KeyView], ring: RingView) -> str | None:
    """Return the published key of a ring that signs next: the lowest version above the active."""
    held = [key for key in keys if key.ring == ring.name]
    lowest = max((key.version for key in held if key.signs), default=0)
    waiting = [key for key in held if key.state == "published" and key.version > lowest]
    return min(waiting, key=lambda key: key.version).kid if waiting else None


def _path_of(api: AdminApi, kid: str) -> tuple[str, ...]:
    """Return the path of a key."""
    for key in _list_keys(api):
        if key.kid == kid:
            return ("rings", key.ring, "keys", kid)
    raise NotFoundError(f"no ring has a key {kid!r}; `authz-server keys list` shows them")


def _result(answer: dict[str, Any]) -> OrderResult:
    """Return the result in an answer; changes of a key have an id of the key."""
    kind: type[OrderResult] = _RESULTS.get(str(answer.get("command")), OrderResult)
    fields = {
        name: convert(answer.get(name), hint)
        for name, hint in get_type_hints(kind).items()
        if name != "changes"
    }
    changes: tuple[RingChanged | KeyChanged, ...] = tuple(
        convert(each, RingChanged) if each.get("kid") is None else convert(each, KeyChanged)
        for each in answer.get("changes", ())
    )
    return kind(**fields, changes=changes)
