"""Answer requests to the admin API: find the route, authenticate, check, act, render."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlencode
from wsgiref.types import WSGIEnvironment

import msgspec
from sqlalchemy.orm import Session

from authz_server.admin.approvals import (
    HeldBack,
    answer_filed,
    file_held,
    make_control,
    settle_acts,
)
from authz_server.admin.authentication import Callers, authorise_route
from authz_server.admin.bodies import read_body, read_query
from authz_server.admin.calls import AdminParts, Call, NoBody, Reply
from authz_server.admin.creations import creation_key
from authz_server.admin.long_reads import LongReads, OneAtATime
from authz_server.admin.openapi import describe_api
from authz_server.admin.problems import Problem, as_problem, render_problem
from authz_server.admin.rates import CallerRates
from authz_server.admin.router import Router
from authz_server.admin.routes import PREFIX, ROUTES, Route
from authz_server.admin.tags import require_match, tag_of
from authz_server.assembly import Services
from authz_server.audit.events import RequestRefused
from authz_server.audit.records import difference, record_diff
from authz_server.database.idempotency import begin_creation, finish_creation
from authz_server.endpoints.json_bodies import JSON_TYPE
from authz_server.endpoints.request import Request
from authz_server.endpoints.responses import Answer, new_request_id, private_answer
from authz_server.endpoints.wsgi import read_request
from authz_server.errors import OAuthError
from authz_server.logs import bind_request_id
from authz_server.operations.approvals import CONTROL
from authz_server.operations.changes import get_change
from authz_server.operations.limited_services import ReachMemory, limit_services
from authz_server.operations.one_transaction import run_together
from authz_server.operations.permissions import UNLIMITED, Caller, Limits

#: The refusals that are recorded.
_RECORDED = frozenset({401, 403, 429})
_OK = 200
#: Before the id of a change, as the subject of a creation that waits for an approval.
_FILED = " change "

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Performed:
    """The answer to a request in this process.

    Attributes:
        status: the HTTP status.
        body: the decoded JSON body; of a refusal, the problem details.
        headers: the headers.
    """

    status: int
    body: Any
    headers: Mapping[str, str]


class AdminApi:
    """Answers requests to the admin API.

    Args:
        parts: the parts that calls use.
        callers: authenticates callers.
        rates: counts their requests.
        begin: starts the background work of the process.
    """

    def __init__(
        self,
        parts: AdminParts,
        callers: Callers,
        rates: CallerRates,
        begin: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._callers = callers
        self._rates = rates
        self._reaches = ReachMemory()
        self._begin = begin
        self._router = Router(ROUTES)
        settings = parts.services.settings
        self._retry_after_seconds = settings.server.retry_after_seconds
        self.long_reads = LongReads(self._retry_after_seconds)
        self.lone_calls = OneAtATime(
            self._retry_after_seconds, "Another request applies or exports declarative files."
        )
        self._maximum_body_bytes = settings.server.maximum_body_bytes
        self.larger_bodies = {
            f"{PREFIX}{route.path}": route.maximum_body_bytes
            for route in ROUTES
            if route.maximum_body_bytes
        }

    @cached_property
    def _document(self) -> dict[str, Any]:
        """The OpenAPI document, made when it is first asked for: it takes most of a start."""
        return describe_api(ROUTES, self._parts.services.settings)

    def respond(self, environ: WSGIEnvironment, path: str) -> Answer:
        """Return the response to a request; every exception becomes a response.

        Args:
            environ: the request (PEP 3333).
            path: its path as sent, not decoded.
        """
        request_id = new_request_id()
        bind_request_id(request_id)
        limit = self._maximum_body_bytes
        if environ["REQUEST_METHOD"] == "POST" and environ.get("HTTP_AUTHORIZATION"):
            limit = max(limit, self.larger_bodies.get(path, 0))
        request = read_request(environ, limit)
        request.path = path
        address = request.peer
        try:
            self._begin()
            address = self._callers.address_of(request)
            return self._answer(request, address, request_id)
        except Exception as fault:  # noqa: BLE001 - every fault is answered
            problem = as_problem(fault, self._retry_after_seconds)
        return render_problem(self._recorded(problem, request, address, request_id), request_id)

    def perform(  # noqa: PLR0913 - the parts of a request, by name
        self,
        caller: Caller,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        if_match: str | None = None,
        idempotency_key: str = "",
        address: str = "",
    ) -> Performed:
        """Return the answer to a request of an authenticated caller in this process.

        The checks, the transaction, the records and the refusals are those of a request by HTTP.

        Args:
            caller: the caller.
            method: the method.
            path: the path below :data:`PREFIX`, percent-encoded.
            query: the parameters of the query string.
            body: encoded as JSON; None: there is none.
            if_match: the condition of a change.
            idempotency_key: the key of a creation; empty for none.
            address: the IP address of the caller, for the records of refusals.
        """
        request_id = new_request_id()
        bind_request_id(request_id)
        headers = {} if body is None else {"content-type": JSON_TYPE}
        if if_match is not None:
            headers["if-match"] = if_match
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        request = Request(
            method,
            f"{PREFIX}{path}",
            urlencode(query or {}),
            headers,
            b"" if body is None else _encode(body),
            address,
        )
        try:
            self._begin()
            answer = self._answer(request, address, request_id, caller)
        except Exception as fault:  # noqa: BLE001 - every fault is answered
            problem = as_problem(fault, self._retry_after_seconds)
            answer = render_problem(
                self._recorded(problem, request, address, request_id), request_id
            )
        return Performed(answer.status, msgspec.json.decode(answer.body), answer.headers)

    def _recorded(
        self, problem: Problem, request: Request, address: str, request_id: str
    ) -> Problem:
        """Record the refusal of a caller; return what to send instead if that fails."""
        if problem.status not in _RECORDED:
            return problem
        name = problem.name.replace("-", "_")
        try:
            self._parts.services.notify(
                RequestRefused(
                    request_id=request_id,
                    source_address=address,
                    error=name,
                    reason=name,
                    detail=f"{request.client_id} {problem.detail}".strip(),
                )
            )
        except OAuthError as unrecorded:
            return as_problem(unrecorded, self._retry_after_seconds)
        return problem

    def _answer(
        self, request: Request, address: str, request_id: str, known: Caller | None = None
    ) -> Answer:
        route, parameters = self._router.find(request.method, request.path)
        caller = self._callers.authenticate(request, address) if known is None else known
        request.client_id = caller.name
        self._rates.count(caller.key)
        now = self._parts.services.corrected_clock()
        limits = authorise_route(caller, route, now=now)
        if request.fault is not None:
            raise request.fault
        with self.lone_calls.one() if route.is_alone else nullcontext():
            call = self._read(route, parameters, request, caller, limits)
            if route.act is None:
                return private_answer(self._document, request_id)
            if route.kind == "read":
                return self._show(route, route.act, call, request_id)
            return self._carry_out(route, route.act, call, request, request_id)

    def _carry_out(
        self,
        route: Route,
        act: Callable[[Call], Reply],
        call: Call,
        request: Request,
        request_id: str,
    ) -> Answer:
        call = replace(call, control=make_control(call))
        if route.prepare is not None:
            call = replace(call, prepared=route.prepare(call))
        carry_out = self._order if route.kind == "order" else self._change
        try:
            return carry_out(route, act, call, request, request_id)
        except HeldBack as held:
            return self._file(route, call, held, request, request_id)

    def _read(
        self,
        route: Route,
        parameters: Mapping[str, str],
        request: Request,
        caller: Caller,
        limits: Limits,
    ) -> Call:
        query = read_query(request, route.query)
        if route.body is None and request.body:
            raise Problem("invalid-request", "The request must not have a body.")
        return Call(
            parts=self._parts,
            services=limit_services(
                self._parts.services,
                UNLIMITED if route.limited == "items" else limits,
                caller.key,
                only_reads=route.kind == "read",
                memory=self._reaches,
            ),
            caller=caller,
            limits=limits,
            path=request.path,
            parameters=parameters,
            query=query,
            body=NoBody() if route.body is None else read_body(request, route.body),
            dry_run=getattr(query, "dry_run", False),
        )

    def _show(
        self, route: Route, act: Callable[[Call], Reply], call: Call, request_id: str
    ) -> Answer:
        try:
            with self.long_reads.one() if route.is_long else nullcontext():
                reply = act(call)
        except OverflowError as error:
            detail = "A time or a number is out of range."
            raise Problem("invalid-request", detail) from error
        headers = {} if route.item is None else {"ETag": tag_of(reply.body)}
        return private_answer(reply.body, request_id, headers=headers)

    def _order(
        self,
        route: Route,
        act: Callable[[Call], Reply],
        call: Call,
        request: Request,
        request_id: str,
    ) -> Answer:
        item = route.loader
        require_match(request.headers.get("if-match"), item(call))
        reply = act(call)
        body = _body(reply, reply.diff, dry_run=call.dry_run)
        if call.control is not None and call.control.noted:
            with self._parts.services.transaction() as session:
                body |= settle_acts(call, session, reply.diff, body)
        return private_answer(body, request_id, headers={"ETag": tag_of(item(call))})

    def _change(
        self,
        route: Route,
        act: Callable[[Call], Reply],
        call: Call,
        request: Request,
        request_id: str,
    ) -> Answer:
        def within(services: Services, session: Session) -> Answer:
            inside = replace(call, services=services, session=session)
            session.info[CONTROL] = call.control
            if route.kind == "create":
                return self._create(route, act, inside, request, request_id)
            item = route.loader
            before = item(inside)
            require_match(request.headers.get("if-match"), before)
            reply = act(inside)
            after = None if reply.body is None else item(replace(inside, session=None))
            diff = difference(before, after)
            record_diff(session, diff)
            body = _body(reply, diff, dry_run=call.dry_run)
            body |= settle_acts(inside, session, diff, body)
            headers = {} if after is None else {"ETag": tag_of(after)}
            return private_answer(body, request_id, headers=headers)

        answer = run_together(call.services, within, dry_run=call.dry_run)
        if not call.dry_run:
            # The next request may come from a caller whose client was changed.
            self._parts.services.feed.poll()
        return answer

    def _create(
        self,
        route: Route,
        act: Callable[[Call], Reply],
        call: Call,
        request: Request,
        request_id: str,
    ) -> Answer:
        key = creation_key(route, call, request)
        replaced = None if route.item is None else route.item(call)
        if route.item is not None and "if-match" in request.headers:
            require_match(request.headers["if-match"], replaced)
        if key is None or call.session is None or route.repeat is None:
            reply = act(call)
        else:
            earlier = begin_creation(call.session, *key, call.services.corrected_clock())
            if earlier is not None:
                if earlier.request != key[1]:
                    raise Problem("idempotency-key-reused", "Use a new key for each request.")
                if earlier.subject.startswith(_FILED):
                    filed = get_change(call.parts.services, earlier.subject.removeprefix(_FILED))
                    return answer_filed(PREFIX, filed, request_id)
                reply = route.repeat(call, earlier.subject)
                return self._created(reply, {}, call, request_id, _OK)
            reply = act(call)
            finish_creation(call.session, key[0], reply.subject)
        diff = difference(replaced, reply.body) if reply.diff is None else reply.diff
        return self._created(reply, diff, call, request_id, route.status)

    def _file(
        self, route: Route, call: Call, held: HeldBack, request: Request, request_id: str
    ) -> Answer:
        """File an act that waits for an approval."""
        key = creation_key(route, call, request)
        with self._parts.services.transaction() as session:
            earlier = key and begin_creation(session, *key, call.services.corrected_clock())
            if earlier:
                # The same request was sent twice at the same time.
                raise Problem("conflict", "The request is being repeated.")
            filed = file_held(call, session, held)
            if key is not None:
                finish_creation(session, key[0], f"{_FILED}{filed.id}")
        return answer_filed(PREFIX, filed, request_id, held.answer)

    def _created(
        self, reply: Reply, diff: object, call: Call, request_id: str, status: int
    ) -> Answer:
        headers = {}
        if reply.location:
            listed = call.path.removesuffix("/rotate")
            headers = {"Location": f"{listed}/{reply.location}", "ETag": tag_of(reply.body)}
        body = _body(reply, diff, dry_run=call.dry_run)
        if call.session is not None:
            if not reply.has_recorded_diff:
                record_diff(call.session, diff)
            body |= settle_acts(call, call.session, diff, body)
        return private_answer(
            body, request_id, status=_OK if call.dry_run else status, headers=headers
        )


def _body(reply: Reply, diff: object, *, dry_run: bool) -> dict[str, Any]:
    item = {} if reply.body is None else msgspec.to_builtins(reply.body)
    return {**item, **reply.members, "diff": diff, "dry_run": dry_run}
