"""The stored audit records, and the settings."""

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from authz_server.admin.calls import Call, Reply
from authz_server.admin.long_reads import OneAtATime
from authz_server.admin.pages import MAXIMUM_LIMIT, CursorQuery, PageQuery, fitting
from authz_server.admin.resources.clients import Instant
from authz_server.operations.audit.search import TrailRecord, search_trail
from authz_server.operations.audit.verify import verify_audit
from authz_server.operations.audit.who import WhoPlace, find_part_of_who
from authz_server.operations.least_privilege import ReportPlace, report_part
from authz_server.operations.reports import NAMED_CLIENTS, report_owners
from authz_server.operations.stored_records import RecordFilters, list_records
from authz_server.settings import STREAMS, describe_settings

_TICK = timedelta(microseconds=1)
#: The largest part of an answer to who could use a scope: each part takes as long as the whole.
_MOST_CLIENTS = 10_000


class AuditQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of audit records.

    Attributes:
        actor: the whole actor.
        action: the event's name; with a trailing ``.`` every event of a kind, such as ``client.``.
        subject: the whole subject.
        client: the id of a client or resource server that acted, or was changed.
        scope: a scope in any spelling; ``disburse`` and ``disburse/*`` stand for all below.
        key: the id of a key, or the name of a ring.
        ring: the name of a ring, with its keys.
        jti: the id of a token.
        since: the time of the first record.
        until: the time before which the last record lies.
    """

    actor: Annotated[str, Meta(max_length=300)] | None = None
    action: Annotated[str, Meta(max_length=100)] | None = None
    subject: Annotated[str, Meta(max_length=300)] | None = None
    client: Annotated[str, Meta(max_length=128)] | None = None
    scope: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    key: Annotated[str, Meta(max_length=200)] | None = None
    ring: Annotated[str, Meta(max_length=200)] | None = None
    jti: Annotated[str, Meta(max_length=200)] | None = None
    since: Instant | None = None
    until: Instant | None = None


#: Where the records of issued tokens and refusals are: ``files`` that were searched;
#: ``elsewhere``, since the destination is a stream of the process; ``none``, there is no file yet.
TokenRecords = Literal["files", "elsewhere", "none"]


class TrailMembers(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to a search has beside those of a list.

    Attributes:
        files: the files of this node that were searched.
        destination: the destination of audit records in the settings.
        tokens_recorded: where the records of tokens and refusals are: ``files``, which were
            searched; ``elsewhere``, where this server cannot read them; ``none``.
    """

    files: tuple[str, ...]
    destination: str
    tokens_recorded: TokenRecords


class WhoQuery(CursorQuery, frozen=True, kw_only=True):
    """The parameters of the question who could use a scope at a time.

    Attributes:
        scope: a scope in any spelling; ``disburse`` and ``disburse/*`` stand for all below.
        at: the time.
        limit: the largest number of clients in each list of the answer; the next part continues
            each list.
    """

    scope: Annotated[str, Meta(min_length=1, max_length=200)]
    at: Instant
    limit: Annotated[int, Meta(ge=1, le=_MOST_CLIENTS)] = 50


class LeastPrivilegeQuery(CursorQuery, frozen=True, kw_only=True):
    """The parameters of the report of least privilege.

    Attributes:
        days: the length of the period until now.
        limit: the largest number of entries in each list of the answer; the next part continues
            each list.
    """

    days: Annotated[int, Meta(ge=1, le=3_660)] = 90
    limit: Annotated[int, Meta(ge=1, le=MAXIMUM_LIMIT)] = 50


class OwnersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of the report of owners.

    Attributes:
        limit: the largest number of clients of each scope, and of callbacks.
    """

    limit: Annotated[int, Meta(ge=1, le=MAXIMUM_LIMIT)] = NAMED_CLIENTS


class SettingsQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of settings.

    Attributes:
        changed: list only what differs from the defaults.
    """

    changed: bool = False


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting.

    Attributes:
        key: its dotted path.
        value: its value; a secret is shown as set or not set.
        default: whether the value is the default.
    """

    key: str
    value: Any
    default: bool


def list_audit(call: Call) -> Reply:
    """Answer a page of stored audit records, newest first."""
    query: AuditQuery = call.query
    filters = _filters(query)
    found = list_records(call.services, filters, before=call.after(), limit=query.most + 1)
    return call.page(found, lambda record: record.id)


def search_audit(call: Call) -> Reply:
    """Answer a page of the records of changes, tokens and refusals, newest first."""
    query: AuditQuery = call.query
    filters, shown = _filters(query), 0
    if (place := call.after()) is not None:
        at, _, number = place.partition(" ")
        # Of the records of one time, some may be on the page before.
        filters = replace(filters, until=datetime.fromisoformat(at) + _TICK)
        shown = int(number)
    found = search_trail(call.services, filters, limit=query.most + shown)
    records: Sequence[TrailRecord] = found.records[shown:]
    if query.limit is None:
        records = fitting(records)
    seen = found.records[: shown + len(records)]
    following = None
    if found.more or len(seen) < len(found.records):
        reached = found.searched_until if len(seen) == len(found.records) else None
        last = reached or seen[-1].at
        number = sum(record.at == last for record in seen)
        following = call.cursor(f"{last.isoformat()} {number}")
    destination = call.services.settings.audit.destination
    return Reply(
        {
            "items": records,
            "next": following,
            "files": found.files,
            "destination": destination,
            "tokens_recorded": _where(destination, found.files),
        }
    )


def _filters(query: AuditQuery) -> RecordFilters:
    names = query.__struct_fields__
    return RecordFilters(
        **{
            each.name: getattr(query, each.name)
            for each in fields(RecordFilters)
            if each.name in names
        }
    )


def _where(destination: str, files: Sequence[str]) -> TokenRecords:
    if destination in STREAMS:
        return "elsewhere"
    return "files" if files else "none"


def verify_trail(call: Call) -> Reply:
    """Verify the chains of the stored audit records and of the files of this machine."""
    return Reply(verify_audit(call.services))


def show_who(call: Call) -> Reply:
    """Answer who could use a scope at a time, and who had a token with it."""
    query: WhoQuery = call.query
    after = WhoPlace(*(call.after() or ()))
    found, following = find_part_of_who(
        call.services, query.scope, query.at, after=after, limit=query.limit
    )
    return Reply(replace(found, next=None if following is None else call.cursor(following)))


@cache
def lone_reports(retry_after_seconds: int) -> OneAtATime:
    """Return what lets one report of the process be made at a time: a large one takes seconds."""
    return OneAtATime(retry_after_seconds, "Another request is making this report.")


def show_least_privilege(call: Call) -> Reply:
    """Answer what clients were permitted and do not use."""
    query: LeastPrivilegeQuery = call.query
    after = ReportPlace(*(call.after() or ()))
    with lone_reports(call.services.settings.server.retry_after_seconds).one():
        found, following = report_part(
            call.services, days=query.days, after=after, limit=query.limit
        )
    return Reply(replace(found, next=None if following is None else call.cursor(following)))


def show_owners(call: Call) -> Reply:
    """Answer the scopes without a resource server, and the callbacks that no client may make."""
    query: OwnersQuery = call.query
    return Reply(report_owners(call.services, limit=query.limit))


def list_settings(call: Call) -> Reply:
    """Answer a page of settings, by key."""
    query: SettingsQuery = call.query
    found = [
        Setting(key=each.key, value=each.value, default=each.is_default)
        for each in describe_settings(call.services.settings)
        if not (query.changed and each.is_default)
    ]
    return call.page(found, lambda each: each.key, whole=True)
