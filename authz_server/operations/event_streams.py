"""Register, show and remove the event streams of resource servers, and retry their events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast, get_args

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_difference, store_audit_record
from authz_server.clients.models import Client
from authz_server.clients.outbound import UrlRefusedError, split_url
from authz_server.database.change_feed import record_change
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.tokens.event_streams.contents import EVENT_NAMES
from authz_server.tokens.event_streams.models import EventStream, UndeliveredEvent
from authz_server.tokens.event_streams.reading import find_latest

Delivery = Literal["push", "poll"]
_MAXIMUM_URL_CHARACTERS = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class UndeliveredView:
    """An event that was not delivered.

    Attributes:
        record_id: the id of the audit record.
        event: the short name of the event.
        subject: what it is about, as in the audit record.
        error: why it was not delivered.
        at: when it was given up.
    """

    record_id: int
    event: str
    subject: str
    error: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamView:
    """A stream as operators see it.

    Attributes:
        resource_server_id: the recipient.
        delivery: ``push`` or ``poll``.
        endpoint_url: where events are pushed; empty for ``poll``.
        events: the short names of its events; empty: all.
        pending: the number of events that are read and not delivered.
        unread: the number of audit records that are not read.
        undelivered: the number of events that wait for the operator.
        failures: the number of attempts that failed in a row.
        last_error: why the last attempt failed; empty if it did not.
        retry_at: the time of the next attempt; None: at once.
        delivered_at: when an event was last delivered.
    """

    resource_server_id: str
    delivery: str
    endpoint_url: str
    events: tuple[str, ...]
    pending: int
    unread: int
    undelivered: int
    failures: int
    last_error: str
    retry_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime


def set_stream(  # noqa: PLR0913 - the facts of one stream, by name
    services: Services,
    server_id: str,
    *,
    delivery: Delivery,
    endpoint_url: str = "",
    events: Sequence[str] = (),
    actor: str,
    must_be_new: bool = False,
) -> StreamView:
    """Begin a stream of the events from now, or change one; pending events are kept.

    Args:
        services: the parts of the server.
        server_id: the id of the resource server.
        delivery: ``push`` or ``poll``.
        endpoint_url: where to push; https.
        events: the short names of the events; empty: all.
        actor: the recorded actor.
        must_be_new: refuse to change a stream.

    Raises:
        NotFoundError: there is no such resource server.
        InvalidChangeError: the address or the name of an event is wrong.
        ConflictError: there is a stream, and it must be new.
    """
    _check(services, delivery, endpoint_url, events)
    with services.transaction() as session:
        # Locked: of two that begin a stream, the second one finds it.
        session.get(Client, server_id, with_for_update=True)
        services.clients.get_client(session, server_id, kind="resource_server")
        stream = session.get(EventStream, server_id, with_for_update=True)
        if stream is not None and must_be_new:
            raise ConflictError(f"The resource server {server_id!r} has an event stream.")
        before = None if stream is None else _describe_one(session, stream)
        if stream is None:
            stream = EventStream(
                resource_server_id=server_id,
                position=find_latest(session),
                pending={},
                created_at=services.corrected_clock(),
            )
            session.add(stream)
        _set(services, session, stream, delivery, endpoint_url, events, actor)
        after = _describe_one(session, stream)
        record_difference(session, before, after)
        return after


def change_stream(  # noqa: PLR0913 - the facts of one stream, by name
    services: Services,
    server_id: str,
    *,
    delivery: Delivery | None = None,
    endpoint_url: str | None = None,
    events: Sequence[str] | None = None,
    actor: str,
) -> StreamView:
    """Change the named facts of a stream; pending events are kept.

    Args:
        services: the parts of the server.
        server_id: the id of the resource server.
        delivery: ``push`` or ``poll``, which has no address; None keeps it.
        endpoint_url: where to push; None keeps it.
        events: the short names of the events; None keeps them.
        actor: the recorded actor.

    Raises:
        NotFoundError: the resource server has no stream.
        InvalidChangeError: the address or the name of an event is wrong.
    """
    with services.transaction() as session:
        stream = _find(session, server_id, lock=True)
        way: Delivery = delivery or cast("Delivery", stream.delivery)
        former = stream.endpoint_url if way == "push" else ""
        url = former if endpoint_url is None else endpoint_url
        names = stream.events if events is None else events
        _check(services, way, url, names)
        before = _describe_one(session, stream)
        _set(services, session, stream, way, url, names, actor)
        after = _describe_one(session, stream)
        record_difference(session, before, after)
        return after


def list_streams(services: Services) -> tuple[StreamView, ...]:
    """Return the streams by resource server."""
    with services.database.reading() as session:
        server_id = UndeliveredEvent.resource_server_id
        counted = select(server_id, func.count()).group_by(server_id)
        numbers = {name: number for name, number in session.execute(counted)}  # noqa: C416 - typed rows
        latest = find_latest(session)
        query = select(EventStream).order_by(EventStream.resource_server_id)
        return tuple(
            _describe(each, latest, numbers.get(each.resource_server_id, 0))
            for each in session.scalars(query)
        )


def get_stream(services: Services, server_id: str) -> StreamView:
    """Return a stream.

    Raises:
        NotFoundError: the resource server has none.
    """
    with services.transaction() as session:
        return _describe_one(session, _find(session, server_id))


def list_undelivered(services: Services, server_id: str) -> tuple[UndeliveredView, ...]:
    """Return the events of a stream that wait for the operator, the oldest first."""
    return page_undelivered(services, server_id, after=None, limit=None)


def page_undelivered(
    services: Services, server_id: str, *, after: int | None, limit: int | None
) -> tuple[UndeliveredView, ...]:
    """Return a part of the events of a stream that wait for the operator, the oldest first.

    Args:
        services: the parts of the server.
        server_id: the resource server.
        after: the number of the record after which the part begins; None: the first one.
        limit: the largest number of events; None: all.
    """
    query = select(UndeliveredEvent).where(UndeliveredEvent.resource_server_id == server_id)
    query = query.order_by(UndeliveredEvent.record_id).limit(limit)
    if after is not None:
        query = query.where(UndeliveredEvent.record_id > after)
    with services.database.reading() as session:
        return tuple(
            UndeliveredView(
                record_id=each.record_id,
                event=each.event,
                subject=each.subject,
                error=each.error,
                at=each.at,
            )
            for each in session.scalars(query)
        )


def retry_events(services: Services, server_id: str, *, actor: str) -> int:
    """Deliver the events that wait for the operator again; return how many there are.

    The stream is tried at once.

    Raises:
        NotFoundError: the resource server has no stream.
    """
    with services.transaction() as session:
        stream = _find(session, server_id, lock=True)
        due = select(UndeliveredEvent.record_id).where(
            UndeliveredEvent.resource_server_id == server_id
        )
        found = session.scalars(due).all()
        now = int(services.corrected_clock().timestamp())
        stream.pending = {**{str(each): ["event", now] for each in found}, **stream.pending}
        stream.failures, stream.retry_at = 0, None
        session.execute(
            delete(UndeliveredEvent).where(UndeliveredEvent.resource_server_id == server_id)
        )
        _record(services, session, "event_stream.retried", server_id, actor, events=len(found))
    return len(found)


def delete_stream(services: Services, server_id: str, *, actor: str) -> None:
    """Remove a stream with the events that were not delivered.

    Raises:
        NotFoundError: the resource server has none.
    """
    with services.transaction() as session:
        stream = _find(session, server_id, lock=True)
        before = _describe_one(session, stream)
        session.delete(stream)
        _record(services, session, "event_stream.deleted", server_id, actor)
        record_difference(session, before, None)


def _set(  # noqa: PLR0913, PLR0917 - the facts of one stream
    services: Services,
    session: Session,
    stream: EventStream,
    delivery: str,
    endpoint_url: str,
    events: Sequence[str],
    actor: str,
) -> None:
    stream.delivery, stream.endpoint_url = delivery, endpoint_url
    stream.events = list(dict.fromkeys(events))
    stream.failures, stream.last_error, stream.retry_at = 0, "", None
    facts = {"delivery": delivery, "endpoint_url": endpoint_url, "events": stream.events}
    _record(services, session, "event_stream.set", stream.resource_server_id, actor, **facts)


def _check(services: Services, delivery: str, url: str, events: Sequence[str]) -> None:
    if delivery not in get_args(Delivery):
        raise InvalidChangeError("delivery: use push or poll")
    if (delivery == "push") != bool(url):
        raise InvalidChangeError("endpoint_url: name it for push, and leave it out for poll")
    if len(url) > _MAXIMUM_URL_CHARACTERS:
        raise InvalidChangeError(f"endpoint_url: use at most {_MAXIMUM_URL_CHARACTERS} characters")
    if url:
        try:
            split_url(url, plain_http=services.settings.outbound.plain_http)
        except UrlRefusedError as error:
            raise InvalidChangeError(f"endpoint_url: {error}") from error
    for name in events:
        if name not in EVENT_NAMES:
            known = ", ".join(EVENT_NAMES)
            raise InvalidChangeError(f"events: there is no event {name!r}; there are {known}")


def _find(session: Session, server_id: str, *, lock: bool = False) -> EventStream:
    stream = session.get(EventStream, server_id, with_for_update=lock or None)
    if stream is None:
        raise NotFoundError(
            f"The resource server {server_id!r} has no event stream. "
            "`authz-server event-stream list` shows them."
        )
    return stream


def _record(
    services: Services, session: Session, action: str, server_id: str, actor: str, **facts: object
) -> None:
    store_audit_record(
        session,
        at=services.corrected_clock(),
        actor=actor,
        action=action,
        subject=server_id,
        **facts,
    )
    session.flush()
    record_change(session, "stream", server_id)


def _describe_one(session: Session, stream: EventStream) -> StreamView:
    counted = select(func.count()).where(
        UndeliveredEvent.resource_server_id == stream.resource_server_id
    )
    return _describe(stream, find_latest(session), session.scalar(counted) or 0)


def _describe(stream: EventStream, latest: int, undelivered: int) -> StreamView:
    return StreamView(
        resource_server_id=stream.resource_server_id,
        delivery=stream.delivery,
        endpoint_url=stream.endpoint_url,
        events=tuple(stream.events),
        pending=sum(each[0] == "event" for each in stream.pending.values()),
        unread=max(0, latest - stream.position),
        undelivered=undelivered,
        failures=stream.failures,
        last_error=stream.last_error,
        retry_at=stream.retry_at,
        delivered_at=stream.delivered_at,
        created_at=stream.created_at,
    )
