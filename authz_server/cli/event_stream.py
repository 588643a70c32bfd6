"""``event-stream``: the security events that resource servers receive."""

import click

from authz_server.cli.commands import Command, Commands, add_all
from authz_server.cli.invocation import Invocation, pass_invocation
from authz_server.cli.output import as_record, json_option, print_change, print_record, print_rows
from authz_server.operations.event_streams import (
    delete_stream,
    get_stream,
    list_streams,
    list_undelivered,
    retry_events,
    set_stream,
)
from authz_server.tokens.event_streams.contents import EVENT_NAMES
from keys.plurals import counted

_COLUMNS = {
    "resource_server_id": "Resource server",
    "delivery": "Delivery",
    "endpoint_url": "Address",
    "pending": "Pending",
    "undelivered": "Undelivered",
    "failures": "Failures",
    "last_error": "Last error",
}
_UNDELIVERED_COLUMNS = {
    "record_id": "Record",
    "event": "Event",
    "subject": "Subject",
    "at": "Given up",
    "error": "Error",
}


@click.command(
    "set",
    cls=Command,
    remote=True,
    example="authz-server event-stream set mapper \\\n    --push https://mapper.example.org/events",
)
@click.argument("id")
@click.option("--push", "url", metavar="URL", help="Send each event to this address (RFC 8935).")
@click.option("--poll", is_flag=True, help="Let the resource server fetch its events (RFC 8936).")
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice(EVENT_NAMES),
    metavar="NAME",
    help="Only these events. Repeatable; without it, all.",
)
@json_option
@pass_invocation
def set_(  # noqa: PLR0913, PLR0917 - one for each option
    invocation: Invocation,
    id: str,  # noqa: A002 - the argument's name
    url: str | None,
    poll: bool,
    events: tuple[str, ...],
    as_json: bool,
) -> None:
    """Begin the event stream of a resource server, or change it.

    A new stream has the events from now. After a change, events that are pending are delivered
    the new way. The names of events are token-revoked, tokens-revoked, client-disabled,
    client-enabled, client-deleted, secret-ended, key-compromised, stopped and resumed.
    """
    if bool(url) == poll:
        raise click.UsageError("Use --push or --poll.")
    with invocation.operations() as carry_out:
        stream = carry_out(
            set_stream,
            id,
            delivery="poll" if poll else "push",
            endpoint_url=url or "",
            events=events,
            actor=invocation.actor,
        )
    way = "polls its events" if poll else f"gets its events at {url}"
    print_change(as_record(stream), f"The resource server {id} {way}.", as_json=as_json)


@click.command("list", cls=Command, remote=True, example="authz-server event-stream list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the event streams.

    The table shows how many events are pending, and how many wait for the operator.
    """
    with invocation.operations() as carry_out:
        rows = carry_out(list_streams)
    print_rows(rows, _COLUMNS, as_json=as_json)


@click.command("show", cls=Command, remote=True, example="authz-server event-stream show mapper")
@click.argument("id")
@click.option("--undelivered", is_flag=True, help="Show the undelivered events instead.")
@json_option
@pass_invocation
def show(invocation: Invocation, id: str, undelivered: bool, as_json: bool) -> None:  # noqa: A002
    """Show one event stream, or its undelivered events.

    An event is undelivered after the resource server refused it, or could not be reached for as
    long as `event_streams.keep_hours`.
    """
    with invocation.operations() as carry_out:
        stream = carry_out(get_stream, id)
        rows = carry_out(list_undelivered, id) if undelivered else ()
    if undelivered:
        print_rows(rows, _UNDELIVERED_COLUMNS, as_json=as_json)
    else:
        print_record(stream, as_json=as_json)


@click.command("retry", cls=Command, remote=True, example="authz-server event-stream retry mapper")
@click.argument("id")
@json_option
@pass_invocation
def retry(invocation: Invocation, id: str, as_json: bool) -> None:  # noqa: A002
    """Deliver the undelivered events again.

    The resource server is tried at once, also if an attempt has just failed.
    """
    with invocation.operations() as carry_out:
        count = carry_out(retry_events, id, actor=invocation.actor)
    events = counted(count, "event is", "events are")
    sentence = f"{events} delivered to {id} again."
    print_change({"resource_server_id": id, "events": count}, sentence, as_json=as_json)


@click.command(
    "delete", cls=Command, remote=True, example="authz-server event-stream delete mapper --yes"
)
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def delete(invocation: Invocation, id: str, yes: bool, as_json: bool) -> None:  # noqa: A002
    """Remove an event stream with its undelivered events.

    The audit records keep what happened.
    """
    if not yes:
        click.confirm(f"Remove the event stream of {id}?", abort=True, err=True)
    with invocation.operations() as carry_out:
        carry_out(delete_stream, id, actor=invocation.actor)
    sentence = f"The event stream of {id} is removed."
    print_change({"resource_server_id": id}, sentence, as_json=as_json)


event_stream = add_all(
    Commands("event-stream", help="Send security events to resource servers."),
    [set_, list_, show, retry, delete],
)
