"""The endpoint at which resource servers poll their security events (RFC 8936)."""

import threading
from functools import partial
from typing import Any

from authz_server.audit.events import EventPollRefused
from authz_server.endpoints.json_bodies import read_form, read_json_object
from authz_server.endpoints.protocol import EndpointParts, Exchange, ProtocolEndpoint
from authz_server.endpoints.responses import Answer, private_answer
from authz_server.errors import OAuthError
from authz_server.tokens.event_streams.polling import EventPolls, Poll
from authz_server.tokens.event_streams.pushing import describe_refusal
from authz_server.waiting import Lane, Step
from keys.errors import BackendUnavailable, KeysError

SECURITY_EVENTS = "/security-events"
#: Further polls are answered at once; each waiting one holds a thread.
MAXIMUM_WAITING_POLLS = 32
MAXIMUM_EVENTS = 100
_CREDENTIALS = ("client_id", "client_secret", "client_assertion", "client_assertion_type")
_MAXIMUM_ACKNOWLEDGED = 1_000


class EventPollEndpoint(ProtocolEndpoint):
    """Answers the polls of resource servers.

    Args:
        parts: the collaborators that every endpoint needs.
        polls: finds the events.
        wait_seconds: how long a poll may wait for an event.
    """

    name = "security-events"
    refusal = EventPollRefused

    def __init__(self, parts: EndpointParts, polls: EventPolls, wait_seconds: float) -> None:
        super().__init__(parts)
        self._polls = polls
        self._wait_seconds = wait_seconds
        self._places = threading.BoundedSemaphore(MAXIMUM_WAITING_POLLS)

    async def _answer(self, exchange: Exchange) -> Answer:
        document = read_json_object(exchange.request, "parameter_malformed")
        # RFC 8936, 2.4 leaves the credentials open; those of a form are members here.
        given = {name: document[name] for name in _CREDENTIALS if name in document}
        caller = await self._authenticate(exchange, read_form(given))
        poll = self._read(document)
        waits = poll.wait_seconds > 0 and self._places.acquire(blocking=False)
        if not waits:
            poll = poll._replace(wait_seconds=0.0)
        try:
            polled = await Step(
                Lane.EVENTS if waits else Lane.DATABASE,
                partial(self._polls.answer, caller.id, poll),
            )
        except BackendUnavailable as error:
            raise OAuthError(
                "temporarily_unavailable", str(error), retry_after_seconds=error.retry_after
            ) from error
        except KeysError as error:
            raise OAuthError("server_error", str(error)) from error
        finally:
            if waits:
                self._places.release()
        if polled is None:
            raise OAuthError("not_found", "no stream to poll", client_id=caller.id)
        answer = {"sets": polled.tokens, "moreAvailable": polled.more}
        return private_answer(answer, exchange.request_id)

    def _read(self, document: dict[str, Any]) -> Poll:
        """Return the poll of a request; members that RFC 8936 does not define are ignored."""
        wanted = document.get("maxEvents", MAXIMUM_EVENTS)
        at_once = document.get("returnImmediately", False)
        acknowledged, errors = document.get("ack", []), document.get("setErrs", {})
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
            raise OAuthError("parameter_malformed", "maxEvents")
        if not isinstance(at_once, bool):
            raise OAuthError("parameter_malformed", "returnImmediately")
        if not isinstance(acknowledged, list) or len(acknowledged) > _MAXIMUM_ACKNOWLEDGED:
            raise OAuthError("parameter_malformed", "ack")
        if not all(isinstance(each, str) for each in acknowledged):
            raise OAuthError("parameter_malformed", "ack")
        if not isinstance(errors, dict) or len(errors) > _MAXIMUM_ACKNOWLEDGED:
            raise OAuthError("parameter_malformed", "setErrs")
        refused = {jti: describe_refusal(error) for jti, error in errors.items()}
        # RFC 8936, 2.2: a poll for no events only acknowledges.
        waits = wanted > 0 and not at_once
        return Poll(
            min(wanted, MAXIMUM_EVENTS),
            acknowledged,
            refused,
            self._wait_seconds if waits else 0.0,
        )
