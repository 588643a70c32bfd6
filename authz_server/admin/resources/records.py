"""The stored audit records, and the settings."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from authz_server.admin.calls import Call, Reply
from authz_server.admin.pages import PageQuery
from authz_server.admin.resources.clients import Instant
from authz_server.operations.stored_records import RecordFilters, list_records
from authz_server.settings import describe_settings


class AuditQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of audit records.

    Attributes:
        actor: the whole actor.
        action: the event's name; with a trailing ``.`` every event of a kind, such as ``client.``.
        subject: the whole subject.
        since: the time of the first record.
        until: the time before which the last record lies.
    """

    actor: Annotated[str, Meta(max_length=300)] | None = None
    action: Annotated[str, Meta(max_length=100)] | None = None
    subject: Annotated[str, Meta(max_length=300)] | None = None
    since: Instant | None = None
    until: Instant | None = None


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
    filters = RecordFilters(
        actor=query.actor,
        action=query.action,
        subject=query.subject,
        since=query.since,
        until=query.until,
    )
    found = list_records(call.services, filters, before=call.after(), limit=query.limit + 1)
    return call.page(found, lambda record: record.id)


def list_settings(call: Call) -> Reply:
    """Answer a page of settings, by key."""
    query: SettingsQuery = call.query
    found = [
        Setting(key=each.key, value=each.value, default=each.is_default)
        for each in describe_settings(call.services.settings)
        if not (query.changed and each.is_default)
    ]
    return call.page(sorted(found, key=lambda each: each.key), lambda each: each.key, whole=True)
