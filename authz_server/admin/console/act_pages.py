"""Acts in two steps: the plan of a change, and the change after a confirmation."""

import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any

import msgspec
from flask import Response

from authz_server.admin.api import Performed
from authz_server.admin.console.act_bodies import write_roles
from authz_server.admin.console.act_kinds import Act, Field, Values
from authz_server.admin.console.acts import ACTS
from authz_server.admin.console.desk import RefusedError, path_of
from authz_server.admin.console.diffs import changes_of, differences
from authz_server.admin.console.rendering import as_time, as_utc, link
from authz_server.admin.console.views import MAXIMUM_RETURN_CHARACTERS, View, redirection
from authz_server.admin.problems import Problem

_CHANGED_MEANWHILE = "precondition-failed"
_WAITS = 202
#: A plan keeps the item as it was shown up to this size, to show another editor's change.
_MAXIMUM_SNAPSHOT_CHARACTERS = 8_000
_LISTED = 40
#: The field of a form that asks for a plan alone.
_PLANS = "plan"

Item = dict[str, Any]


def show_act(view: View, name: str) -> Response:
    """Return the page of an act: its plan, or its form until the plan can be made."""
    act = _find(view, name)
    if view.method != "POST":
        return _plan(view, act, view.arguments)
    try:
        view.require_own_form()
    except RefusedError as refusal:
        # Its operator may have logged in again since: what was entered is kept.
        return _plan(view, act, view.form, refusal=refusal)
    if _PLANS in view.form:
        return _plan(view, act, {name: each.strip() for name, each in view.form.items()})
    return _carry_out(view, act, view.form)


def resume_act(name: str, values: Values) -> str:
    """Return the page of an act with what was entered, to return to after a log-in."""
    act = ACTS.get(name)
    return "/" if act is None else _resume(act, values)


def _find(view: View, name: str) -> Act:
    act = ACTS.get(name)
    given = view.form if view.method == "POST" else view.arguments
    # The API refuses it anyway; an act that cannot be done has no page.
    if act is None or not view.desk.may(*act.permissions) or not all(map(given.get, act.names)):
        raise Problem("not-found")
    return act


def _plan(  # noqa: PLR0913 - the parts of a page, by name
    view: View,
    act: Act,
    values: Values,
    *,
    refusal: RefusedError | None = None,
    was: Item | None = None,
    lacks_reason: bool = False,
) -> Response:
    item, tag, planned, sent = None, None, None, values
    try:
        if act.item:
            shown = view.desk.send("GET", path_of(act.item, *_named(act, act.item, values)))
            item, tag = shown.body, shown.headers.get("ETag")
        if not act.fields or _is_filled(act, values):
            sent = _without_kept_times(act, values, item)
            planned = _send(view, act, sent, tag, dry_run=True)
    except RefusedError as refused:
        view.log_in_again(refused, _resume(act, values))
        refusal = refusal or refused
    return view.page(
        "act.html",
        address=_address(act, values),
        act=act,
        values=_shown_values(act, values, item),
        given=sent,
        item=item,
        tag=tag,
        snapshot=_snapshot(item),
        key=secrets.token_urlsafe(12),
        planned=planned.body if planned else None,
        waits=planned is not None and _waits(planned.body),
        changes=changes_of(planned.body.get("diff")) if planned else (),
        refusal=refusal,
        lacks_reason=lacks_reason,
        # A form that was not sent yet lacks nothing.
        missing=_missing(act, values) if any(f.name in values for f in act.fields) else (),
        meanwhile=tuple(differences(was, item)) if was is not None and item else (),
        back=act.back(values),
        listed=_LISTED,
        status=200 if refusal is None else refusal.answer.status,
    )


def _carry_out(view: View, act: Act, values: Values) -> Response:
    if _needs_reason(act, values) and not values.get("reason", "").strip():
        return _plan(view, act, values, lacks_reason=True)
    try:
        done = _send(view, act, values, values.get("tag"), dry_run=False)
    except RefusedError as refusal:
        view.log_in_again(refusal, _resume(act, values))
        was = None
        if refusal.problem == _CHANGED_MEANWHILE:
            was = _read_snapshot(values.get("snapshot", ""))
        return _plan(view, act, values, refusal=refusal, was=was)
    waits = done.status == _WAITS
    # A repeated request is answered without what the act will answer.
    answer = (done.body["answer"] or {}) if waits else done.body
    if waits and not _secret_of(answer):
        return redirection(link("/changes", done="waits"))
    if act.is_shown:
        # What waits has no page yet.
        back = act.back(values if waits else _of_created(values, answer))
        return view.page(
            "done.html",
            # A secret is shown once: no address shows this page again.
            address=back,
            act=act,
            values=values,
            answer=answer,
            waits=waits,
            changes=changes_of(answer.get("diff")),
            back=back,
            secret=_secret_of(answer),
        )
    back = act.back(values)
    return redirection(f"{back}{'&' if '?' in back else '?'}done={act.key}")


def _send(view: View, act: Act, values: Values, tag: str | None, *, dry_run: bool) -> Performed:
    # An address can have more than the form.
    known = {*act.names, *(field.name for field in act.fields), "reason"}
    query = {"dry_run": "true"}
    if not dry_run:
        # Those who decide on an act that waits read the reason.
        reason = values.get("reason", "").strip()
        query = {"reason": reason, "break_glass": "true" if _breaks_glass(values) else ""}
    return view.desk.send(
        act.method,
        path_of(act.path, *_named(act, act.path, values)),
        query=query,
        body=act.body({name: each for name, each in values.items() if name in known}),
        if_match=(tag or "*") if act.item else None,
        idempotency_key="" if dry_run else values.get("key", ""),
    )


def _breaks_glass(values: Values) -> bool:
    return values.get("break_glass") == "yes"


def _needs_reason(act: Act, values: Values) -> bool:
    return act.asks_reason or _breaks_glass(values)


def _named(act: Act, template: str, values: Values) -> Iterable[str]:
    return [values[name] for name in act.names[: template.count("{}")]]


def _is_filled(act: Act, values: Values) -> bool:
    """Return whether a plan can be made: with the required fields, and of what was entered."""
    shows = any(field.member for field in act.fields)
    entered = any(field.name in values for field in act.fields)
    return not _missing(act, values) and (entered or not shows)


def _missing(act: Act, values: Values) -> list[Field]:
    """Return the required fields without a value."""
    return [each for each in act.fields if each.required and not values.get(each.name, "").strip()]


def _address(act: Act, values: Values) -> str:
    """Return the address of the plan with the same fields, which a form does not have."""
    fields = (field.name for field in act.fields if field.is_in_addresses)
    names = (*act.names, *fields, "reason")
    return link(f"/act/{act.name}", **{name: values.get(name) for name in names})


def _resume(act: Act, values: Values) -> str:
    """Return this address; without what was entered if a log-in cannot lead back to it."""
    address = _address(act, values)
    if len(address) <= MAXIMUM_RETURN_CHARACTERS:
        return address
    return _address(act, {name: values.get(name, "") for name in act.names})


def _shown_values(act: Act, values: Values, item: Item | None) -> dict[str, str]:
    """Return the values of the fields: as entered, or else as the item has them."""
    shown = dict(values)
    for field in act.fields:
        if field.name not in shown and field.member and item:
            shown[field.name] = _as_entered(field, _member_of(item, field.member))
    return shown


def _without_kept_times(act: Act, values: Values, item: Item | None) -> Values:
    """Return the values without the times that are entered as they are shown.

    A form shows a time to the second; the stored one may be more precise, and stays.
    """
    kept = {
        field.name
        for field in act.fields
        if field.kind == "time" and field.member and field.name in values and item
        if as_utc(values[field.name]) == as_utc(_as_entered(field, _member_of(item, field.member)))
    }
    return {name: each for name, each in values.items() if name not in kept}


def _member_of(item: Item, path: str) -> Any:  # noqa: ANN401 - any JSON
    found: Any = item
    for name in path.split("."):
        found = (found or {}).get(name)
    return found


def _as_entered(field: Field, value: Any) -> str:  # noqa: ANN401 - any JSON
    if value is None:
        return ""
    if field.name == "roles":
        return write_roles(value)
    match field.kind:
        case "lines":
            return "\n".join(map(str, value)) if isinstance(value, list) else ""
        case "json":
            return msgspec.json.format(msgspec.json.encode(value)).decode()
        case "time":
            return f"{as_time(value).astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
    return str(value)


def _of_created(values: Values, answer: Mapping[str, Any]) -> Values:
    """Return the values with the name of the created item, whose page is shown afterwards."""
    return {**values, "id": values.get("id") or str(answer.get("id", ""))}


def _waits(answer: Mapping[str, Any]) -> bool:
    """Return whether an act needs an approval, by its dry run."""
    approval = answer.get("approval") or {}
    return bool(approval.get("state") == "pending")


def _secret_of(answer: Mapping[str, Any]) -> str:
    """Return the value of a new secret, or the link for a passkey, which is shown once."""
    added, link = answer.get("secret") or {}, answer.get("enrolment") or answer
    return str(answer.get("value") or added.get("value") or link.get("link") or "")


def _snapshot(item: Item | None) -> str:
    text = msgspec.json.encode(item).decode() if item else ""
    return text if len(text) <= _MAXIMUM_SNAPSHOT_CHARACTERS else ""


def _read_snapshot(text: str) -> Item | None:
    try:
        read = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return read if isinstance(read, dict) else None
