"""Event streams of resource servers: list, show, begin, change, retry and delete them."""

from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.calls import Call, Reply
from authz_server.operations.event_streams import (
    Delivery,
    StreamView,
    change_stream,
    delete_stream,
    get_stream,
    list_streams,
    page_undelivered,
    retry_events,
    set_stream,
)

_Events = Annotated[tuple[str, ...], Meta(max_length=50)]


class StreamChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members of an event stream to change.

    Attributes:
        delivery: ``push`` or ``poll``.
        endpoint_url: where events are pushed; ``poll`` has none.
        events: the short names of its events; empty: all.
    """

    delivery: Delivery | UnsetType = UNSET
    endpoint_url: str | UnsetType = UNSET
    events: _Events | UnsetType = UNSET


class NewStream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event stream to begin.

    Attributes:
        resource_server: the id of the resource server.
        delivery: ``push`` or ``poll``.
        endpoint_url: where events are pushed; ``poll`` has none.
        events: the short names of its events; empty: all.
    """

    resource_server: Annotated[str, Meta(min_length=1, max_length=128)]
    delivery: Delivery
    endpoint_url: str = ""
    events: _Events = ()


def list_all(call: Call) -> Reply:
    """Answer a page of event streams, by resource server."""
    return call.page(list_streams(call.services), lambda each: each.resource_server_id, whole=True)


def load(call: Call) -> StreamView:
    """Return the event stream of the path."""
    return get_stream(call.services, call.parameters["resource_server"])


def show(call: Call) -> Reply:
    """Answer an event stream."""
    return Reply(load(call))


def list_all_undelivered(call: Call) -> Reply:
    """Answer a page of the undelivered events of a stream, the oldest first."""
    stream = load(call)
    found = page_undelivered(
        call.services, stream.resource_server_id, after=call.after(), limit=call.query.most + 1
    )
    return call.page(found, lambda each: each.record_id)


def create(call: Call) -> Reply:
    """Begin the event stream of a resource server, with the events from now."""
    body: NewStream = call.body
    server_id = body.resource_server
    begun = set_stream(
        call.services,
        server_id,
        delivery=body.delivery,
        endpoint_url=body.endpoint_url,
        events=body.events,
        actor=call.caller.actor,
        must_be_new=True,
    )
    return Reply(begun, subject=server_id, location=quote(server_id, safe=""))


def repeat(call: Call, server_id: str) -> Reply:
    """Answer the stream that an earlier request with the same key began."""
    return Reply(get_stream(call.services, server_id), location=quote(server_id, safe=""))


def change(call: Call) -> Reply:
    """Change an event stream; pending events are delivered by its new settings."""
    server_id = call.parameters["resource_server"]
    return Reply(change_stream(call.services, server_id, actor=call.caller.actor, **call.given()))


def retry(call: Call) -> Reply:
    """Deliver the undelivered events of a stream again, at once."""
    server_id = call.parameters["resource_server"]
    retry_events(call.services, server_id, actor=call.caller.actor)
    return Reply(load(call))


def remove(call: Call) -> Reply:
    """Delete an event stream with its undelivered events."""
    delete_stream(call.services, call.parameters["resource_server"], actor=call.caller.actor)
    return Reply(None)
