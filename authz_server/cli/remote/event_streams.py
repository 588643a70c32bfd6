"""The requests for event streams."""

from collections.abc import Sequence
from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.errors import ConflictError
from authz_server.operations.event_streams import (
    Delivery,
    StreamView,
    UndeliveredView,
    delete_stream,
    get_stream,
    list_streams,
    list_undelivered,
    retry_events,
    set_stream,
)

_READ, _WRITE = "resource-servers:read", "resource-servers:write"
_PATH = "event-streams"


@carries_out(set_stream)
def _set_stream(
    api: AdminApi,
    server_id: str,
    *,
    delivery: Delivery,
    endpoint_url: str = "",
    events: Sequence[str] = (),
    **others: Any,  # noqa: ANN401 - the actor, whom the server knows
) -> StreamView:
    del others
    body = {"delivery": delivery, "endpoint_url": endpoint_url, "events": events}
    try:
        answer = api.create(_WRITE, _PATH, body={"resource_server": server_id, **body})
    except ConflictError:
        answer = api.change("PATCH", _WRITE, _PATH, server_id, body=body)
    return convert(answer, StreamView)


@carries_out(list_streams)
def _list_streams(api: AdminApi) -> tuple[StreamView, ...]:
    return api.list(StreamView, _READ, _PATH)


@carries_out(get_stream)
def _get_stream(api: AdminApi, server_id: str) -> StreamView:
    return api.read(StreamView, _READ, _PATH, server_id)


@carries_out(list_undelivered)
def _list_undelivered(api: AdminApi, server_id: str) -> tuple[UndeliveredView, ...]:
    return api.list(UndeliveredView, _READ, _PATH, server_id, "undelivered")


@carries_out(retry_events)
def _retry_events(api: AdminApi, server_id: str, *, actor: str) -> int:
    del actor
    item = (_PATH, server_id)
    count = _get_stream(api, server_id).undelivered
    api.change("POST", _WRITE, *item, "retry", item=item, body={})
    return count


@carries_out(delete_stream)
def _delete_stream(api: AdminApi, server_id: str, *, actor: str) -> None:
    del actor
    api.change("DELETE", _WRITE, _PATH, server_id)
