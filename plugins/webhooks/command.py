"""The command ``webhooks``: what waits, what was given up, and another attempt."""

import json
from collections.abc import Collection
from datetime import UTC, datetime

import click

from plugins.webhooks.queue import DeliveryQueue

_DEAD_SHOWN = 20


def make_command(queue: DeliveryQueue, receivers: Collection[str]) -> click.Command:
    """Return the command, whose argument is what to do.

    Args:
        queue: the events.
        receivers: the names of the receivers.
    """

    @click.command(
        "webhooks",
        help="List the webhooks that wait or were given up (list), try them again (retry NAME), or"
        " remove those given up (purge NAME).",
    )
    @click.argument("verb", type=click.Choice(["list", "retry", "purge"]))
    @click.argument("receiver", required=False)
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    def webhooks(verb: str, receiver: str | None, *, as_json: bool) -> None:
        if verb == "list":
            click.echo(_as_json(queue) if as_json else _as_text(queue))
            return
        if receiver is None or receiver not in receivers:
            raise click.ClickException(f"name a receiver: {', '.join(receivers)}")
        if verb == "purge":
            click.echo(f"{queue.purge(receiver)} events of {receiver} were removed.")
            return
        click.echo(f"{queue.retry(receiver)} events of {receiver} are due now.")

    return webhooks


def _as_text(queue: DeliveryQueue) -> str:
    lines = [
        f"{each.receiver}: {each.waiting} wait, {each.dead} were given up"
        f" (oldest {_at(each.oldest_at)})"
        for each in queue.count()
    ]
    lines += [
        f"  {_at(each.created_at)}  {each.receiver}  {each.event}  {each.message_id}: {each.error}"
        for each in queue.list_dead(_DEAD_SHOWN)
    ]
    return "\n".join(lines) or "No event waits."


def _as_json(queue: DeliveryQueue) -> str:
    dead = [
        {
            "receiver": each.receiver,
            "event": each.event,
            "message_id": each.message_id,
            "queued_at": _at(each.created_at),
            "attempts": each.attempts,
            "error": each.error,
        }
        for each in queue.list_dead(_DEAD_SHOWN)
    ]
    counts = [
        {"receiver": each.receiver, "waiting": each.waiting, "given_up": each.dead}
        for each in queue.count()
    ]
    return json.dumps({"receivers": counts, "given_up": dead}, indent=2)


def _at(moment: float | None) -> str:
    if moment is None:
        return "-"
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
