"""The tokens and refusals of the last hours, as far as this node has recorded them."""

from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from authz_server.admin.calls import Call, Reply
from authz_server.admin.problems import Problem
from authz_server.admin.resources.clients import Instant
from authz_server.errors import NotFoundError
from authz_server.operations.activity import report_activity

_DEFAULT = timedelta(hours=1)
_LONGEST = timedelta(days=7)


class ActivityQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of the activity.

    Attributes:
        since: the beginning, at most seven days ago; null: an hour ago.
        client: the client whose tokens and refusals are counted; null: all.
    """

    since: Instant | None = None
    client: Annotated[str, Meta(min_length=1, max_length=300)] | None = None


def show(call: Call) -> Reply:
    """Answer the number of tokens and refusals, and the latest tokens."""
    query: ActivityQuery = call.query
    now = call.services.clock()
    since = query.since or now - _DEFAULT
    if not now - _LONGEST <= since <= now:
        detail = "Use a time of the last seven days."
        raise Problem("invalid-request", detail, members={"field": "since"})
    try:
        found = report_activity(call.services, since, client_id=query.client)
    except OSError:
        found = None
    if found is None:
        raise NotFoundError("The audit records of this node do not go to a file.")
    return Reply(found)
