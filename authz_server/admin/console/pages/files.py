"""The screen *Files*: download the registrations as a declarative file, and apply files."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flask import Response

from authz_server.admin.api import Performed
from authz_server.admin.console.desk import RefusedError
from authz_server.admin.console.diffs import change_of
from authz_server.admin.console.rendering import link
from authz_server.admin.console.views import SECURITY_HEADERS, View, redirection
from authz_server.admin.problems import Problem
from authz_server.operations.declarative.limits import READS, WRITES

#: The size of all files of a form, which carries them from the plan to its confirmation.
MAXIMUM_BYTES = 400_000
#: The largest form: a browser sends two bytes for the end of a line, and the rest are its fields.
MAXIMUM_FORM_BYTES = 1_000_000
MAXIMUM_FILES = 20
#: The entries of a plan that are shown, and the fields of each.
_LISTED, _FIELDS = 60, 12
_TYPES = {"toml": "application/toml", "json": "application/json"}
_ACTS = ("add", "change", "remove")
_PATH, _PAGE = "/declaration", "/files"
_WAITS = 202

File = Mapping[str, str]


class _UnusableError(Exception):
    """The form has no files that can be used; the message is the key of the reason."""


def show(view: View) -> Response:
    """Show the page; after a form, the plan of its files or the result of their application."""
    if view.method != "POST":
        return _page(view)
    view.require_own_form()
    try:
        files = [*_read_files(view)]
    except _UnusableError as unusable:
        return _page(view, unusable=str(unusable), status=422)
    if view.form.get("step") == "apply":
        return _apply(view, files)
    return _plan(view, files)


def export(view: View) -> Response:
    """Send the registrations that the operator sees as a declarative file."""
    form = view.arguments.get("format", "")
    if form not in _TYPES:
        raise Problem("not-found")
    text = view.desk.get(_PATH, format=form)["text"]
    answer = Response(text, content_type=f"{_TYPES[form]}; charset=utf-8")
    answer.headers.update(SECURITY_HEADERS)
    name = f"registrations-{view.now:%Y%m%dT%H%M%SZ}.{form}"
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _read_files(view: View) -> Iterator[File]:
    """Yield the files of a form: those of a plan, the uploaded ones, or the pasted text."""
    given = [
        (each, view.form.get(f"text-{name.removeprefix('name-')}", ""))
        for name, each in view.form.items()
        if name.startswith("name-")
    ]
    given += _read_uploads(view)
    pasted = view.form.get("text", "")
    if not given and pasted.strip():
        form = "json" if pasted.lstrip().startswith("{") else "toml"
        given.append((f"pasted.{form}", pasted))
    if not given:
        raise _UnusableError("empty")
    if len(given) > MAXIMUM_FILES:
        raise _UnusableError("too_many")
    # A browser ends the lines of a form in its own way, and the digest of a plan counts them.
    read = [(name, text.replace("\r\n", "\n").replace("\r", "\n")) for name, text in given]
    if sum(len(text.encode()) for _, text in read) > MAXIMUM_BYTES:
        raise _UnusableError("too_large")
    for name, text in read:
        yield {"name": name, "text": text}


def _read_uploads(view: View) -> Iterator[tuple[str, str]]:
    uploads = [each for each in view.uploads("file") if each.filename]
    if len(uploads) > MAXIMUM_FILES:
        raise _UnusableError("too_many")
    left = MAXIMUM_BYTES
    for upload in uploads:
        content = upload.stream.read(left + 1)
        left -= len(content)
        if left < 0:
            raise _UnusableError("too_large")
        try:
            yield upload.filename or "", content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _UnusableError("not_text") from error


def _plan(view: View, files: Sequence[File], refusal: RefusedError | None = None) -> Response:
    planned: dict[str, Any] | None = None
    try:
        planned = _send(view, files, {"dry_run": "true"}).body
    except RefusedError as refused:
        # Roles need a fresh log-in; the files are chosen again after it.
        view.log_in_again(refused, _PAGE)
        refusal = refusal or refused
    approval = (planned or {}).get("approval") or {}
    return _page(
        view,
        files=files,
        planned=planned,
        **_listed(planned),
        waits=approval.get("state") == "pending",
        refusal=refusal,
        key=secrets.token_urlsafe(12),
        status=200 if refusal is None else refusal.answer.status,
    )


def _apply(view: View, files: Sequence[File]) -> Response:
    breaks_glass = view.form.get("break_glass") == "yes"
    reason = view.form.get("reason", "").strip()
    query = {"reason": reason, "break_glass": "true" if breaks_glass else ""}
    try:
        done = _send(
            view,
            files,
            query,
            expected=view.form.get("expected"),
            idempotency_key=view.form.get("key", ""),
        )
    except RefusedError as refusal:
        view.log_in_again(refusal, _PAGE)
        return _plan(view, files, refusal)
    waits = done.status == _WAITS
    # A repeated request is answered without what the application will answer.
    answer = (done.body["answer"] or {}) if waits else done.body
    if waits and not answer.get("secrets"):
        return redirection(link("/changes", done="waits"))
    return view.page(
        "applied.html",
        answer=answer,
        waits=waits,
        made=answer.get("secrets", {}),
        **_listed(answer),
    )


def _send(
    view: View,
    files: Sequence[File],
    query: Mapping[str, str],
    *,
    expected: str | None = None,
    idempotency_key: str = "",
) -> Performed:
    body = {
        "files": files,
        "prune": view.form.get("prune") == "yes",
        "generate_secrets": view.form.get("generate") == "yes",
        "expected": expected or None,
    }
    return view.desk.send("POST", _PATH, query=query, body=body, idempotency_key=idempotency_key)


def _listed(plan: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the entries of a plan that are shown, their number by act, and that of the others."""
    changes = (plan or {}).get("changes", ())
    shown = [
        {**each, "fields": fields[:_FIELDS], "further": max(len(fields) - _FIELDS, 0)}
        for each in changes[:_LISTED]
        for fields in [[change_of(*map(field.get, _MEMBERS)) for field in each["fields"]]]
    ]
    counts = {act: sum(each["act"] == act for each in changes) for act in _ACTS}
    return {"entries": shown, "counts": counts, "further": max(len(changes) - _LISTED, 0)}


_MEMBERS = ("path", "before", "after")


def _page(view: View, *, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 - of the page
    defaults = {
        "planned": None,
        "refusal": None,
        "unusable": "",
        "files": (),
        "waits": False,
    }
    return view.page(
        "files.html",
        status=status,
        form=view.form,
        may_apply=any(map(view.desk.may, WRITES.values())),
        may_export=all(map(view.desk.may, READS.values())),
        **{**defaults, **values},
    )
