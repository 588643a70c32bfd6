"""The event streams of declared resource servers: begin, change and delete them."""

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.errors import InvalidChangeError
from authz_server.operations.declarative.document import DeclaredStream
from authz_server.operations.declarative.plan import FieldChange
from authz_server.operations.declarative.stored import normal, without_defaults
from authz_server.operations.event_streams import Delivery, delete_stream, set_stream
from authz_server.tokens.event_streams.models import EventStream


def read_streams(session: Session) -> dict[str, dict[str, Any]]:
    """Return the declared fields of the event streams, by the id of their resource server."""
    return {
        row.resource_server_id: without_defaults(
            DeclaredStream,
            {name: normal(getattr(row, name)) for name in DeclaredStream.__struct_fields__},
        )
        for row in session.scalars(select(EventStream))
    }


def bring_stream(
    services: Services,
    server_id: str,
    declared: DeclaredStream | bool | None,  # noqa: FBT001 - the member of a file
    stored: Mapping[str, Any] | None,
    actor: str,
) -> tuple[FieldChange, ...]:
    """Begin, change or delete the event stream of a resource server; return the change.

    Args:
        services: the parts of the server, joined to the transaction.
        server_id: the id of the resource server.
        declared: the stream; False: there is to be none; None leaves it as it is.
        stored: the declared fields of the present stream; None: there is none.
        actor: the recorded actor.

    Raises:
        InvalidChangeError: a value breaks a rule.
    """
    if declared is True:
        raise InvalidChangeError("event_stream: use a table, or false for no stream")
    if isinstance(declared, DeclaredStream):
        names = DeclaredStream.__struct_fields__
        wanted = without_defaults(
            DeclaredStream, {name: normal(getattr(declared, name)) for name in names}
        )
        if wanted != stored:
            set_stream(
                services,
                server_id,
                delivery=cast("Delivery", declared.delivery),
                endpoint_url=declared.endpoint_url,
                events=declared.events,
                actor=actor,
            )
            return (FieldChange(path="event_stream", before=stored, after=wanted),)
    elif declared is False and stored is not None:
        delete_stream(services, server_id, actor=actor)
        return (FieldChange(path="event_stream", before=stored, after=None),)
    return ()
