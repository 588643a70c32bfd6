"""Administrators with roles and limits, and what belongs to them and to others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import event

from authz_server.admin.api import Performed
from authz_server.operations.client_secrets import list_secrets
from authz_server.operations.clients import create_client
from authz_server.operations.event_streams import set_stream
from authz_server.operations.permissions import UNLIMITED, Caller, Limits, make_grants
from authz_server.operations.registration_tokens import create_registration_token
from authz_server.operations.resource_servers import create_resource_server
from authz_server.operations.scopes import add_scope
from authz_server.operations.stops import plan_stop, set_stop
from support.admin_site import AdminSite
from support.parties import ACTOR

#: In the name of everything that belongs to others, and of nothing else.
MARK = "alien"
BY_SERVER = Limits(resource_servers=frozenset({"mine"}))
BY_ORGANISATION = Limits(organisations=frozenset({"Own"}))


@dataclass
class Administration:
    """Resource servers, scopes, clients, secrets and stops of a caller with limits and of others.

    ``shared`` is a client with a scope of each resource server, and ``borrower`` one of the own
    organisation with a scope of others.
    """

    site: AdminSite
    secret_ids: dict[str, str]

    def caller(
        self,
        *roles: str,
        limits: Limits = UNLIMITED,
        name: str = "ada",
        logged_in_seconds_ago: float = 0,
    ) -> Caller:
        """Return an operator with the roles, all within the limits."""
        since = self.site.clock() - timedelta(seconds=logged_in_seconds_ago)
        return Caller(
            name=name,
            kind="operator",
            way="console",
            grants=make_grants(self.site.settings, [(role, limits) for role in roles]),
            operator_id=f"id-of-{name}",
            authenticated_at=since,
        )

    def perform(self, caller: Caller, method: str, path: str, **options: Any) -> Performed:
        """Answer a request of a caller in this process."""
        assert self.site.app.api is not None
        return self.site.app.api.perform(caller, method, path, **options)

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Yield a list that grows by every statement of this thread until the block ends."""
        seen: list[str] = []
        own = threading.get_ident()

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if threading.get_ident() == own:
                seen.append(statement)

        engine = self.site.services.database.engine
        event.listen(engine, "before_cursor_execute", note)
        yield seen
        event.remove(engine, "before_cursor_execute", note)


def make_administration(site: AdminSite) -> Administration:
    """Make what belongs to a caller, and to others."""
    services = site.services
    for server, scope, organisation in (
        ("mine", "mine/read", "Own"),
        (f"{MARK}-server", f"{MARK}/read", MARK),
    ):
        create_resource_server(
            services,
            actor=ACTOR,
            id=server,
            name=server,
            identifier=f"urn:test:{server}",
            organisation=organisation,
        )
        add_scope(
            services,
            actor=ACTOR,
            name=scope,
            aliases=[scope.replace("/", ".")],
            resource_server_id=server,
        )
    add_scope(services, actor=ACTOR, name="lent/read", resource_server_id=f"{MARK}-server")
    for client, scopes, organisation in (
        ("own-client", ["mine/read"], "Own"),
        ("borrower", ["lent/read"], "Own"),
        ("shared", ["mine/read", f"{MARK}/read"], "Third"),
        (f"{MARK}-client", [f"{MARK}/read"], MARK),
    ):
        create_client(
            services,
            actor=ACTOR,
            id=client,
            name=client,
            organisation=organisation,
            allowed_scopes=scopes,
            authentication_method="client_secret_post",
        )
    for server in ("mine", f"{MARK}-server"):
        set_stream(services, server, delivery="poll", actor=ACTOR)
    tokens = {
        organisation: create_registration_token(
            services,
            actor=ACTOR,
            expires_at=site.clock() + timedelta(days=1),
            scopes=[scope],
            organisation=organisation,
            description=organisation,
        ).view.id
        for organisation, scope in (("Own", "mine/read"), (MARK, f"{MARK}/read"))
    }
    for kind, subject in (("scope", f"{MARK}/read"), ("client", f"{MARK}-client")):
        planned = plan_stop(services, kind, subject)
        set_stop(services, planned, reason=MARK, actor=ACTOR)
    site.services.feed.poll()
    site.public.extensions["authz_server"].feed.poll()
    secrets = {
        name: list_secrets(services, name, kind=kind)[0].id
        for name, kind in (
            ("own-client", "client"),
            (f"{MARK}-client", "client"),
            (f"{MARK}-server", "resource_server"),
        )
    }
    return Administration(site, {**secrets, "token": tokens[MARK]})
