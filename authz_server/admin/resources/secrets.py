"""Secrets of clients and resource servers: list, add, rotate and end them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.calls import Call, ChangeQuery, Reply
from authz_server.admin.pages import PageQuery
from authz_server.admin.problems import Problem
from authz_server.admin.resources.clients import (
    Instant,
    NewSecretView,
    imported_secret,
    lock_client,
    require_own_row,
    shown_once,
)
from authz_server.clients.models import Client, Kind
from authz_server.errors import NotFoundError
from authz_server.operations.client_secrets import add_secret, end_secret, list_secrets
from authz_server.operations.client_views import SecretView
from authz_server.operations.due_secrets import DuePlace, list_some_due, place_of
from authz_server.operations.secret_rotation import rotate_secret

#: Ten years.
_LONGEST_SECONDS = 3_660 * 86_400


class NewSecretBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret to add; the others keep working.

    Attributes:
        description: its purpose.
        expires_at: the time at which it ends; null: it does not end.
        imported_secret: an existing secret to store; without one, one is generated.
    """

    description: Annotated[str, Meta(max_length=200)] = ""
    expires_at: Instant | None = None
    imported_secret: Annotated[str, Meta(max_length=1_000)] | UnsetType = UNSET


class Rotation(NewSecretBody, frozen=True, kw_only=True):
    """A secret to add, and the end of those that work; one of the two ends is required.

    Attributes:
        end_old_at: the time at which the old secrets end.
        end_old_when_unused_seconds: the time without a use after which each old secret ends.
    """

    end_old_at: Instant | None = None
    end_old_when_unused_seconds: int | None = None


class EndQuery(ChangeQuery, frozen=True, kw_only=True):
    """The parameters of the end of a secret.

    Attributes:
        at: the time of the end; without one, now.
    """

    at: Instant | None = None


class DueQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of secrets that end soon.

    Attributes:
        within_seconds: how soon they end.
    """

    within_seconds: Annotated[int, Meta(ge=0, le=_LONGEST_SECONDS)] = 30 * 86_400


class SecretAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to a new secret has beside those of the secret.

    Attributes:
        value: the secret, which cannot be read again; absent if it was imported, and in the answer
            to a repeated request.
        old: after a rotation, the secrets that worked before, with their ends.
        secret_hint: how to add another; in the answer to a repeated request alone.
    """

    value: str | UnsetType = UNSET
    old: tuple[SecretView, ...] | UnsetType = UNSET
    secret_hint: str | UnsetType = UNSET


class SecretResources:
    """Answers for the secrets of one kind.

    Args:
        kind: clients or resource servers.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._path = "clients" if kind == "client" else "resource-servers"

    def list(self, call: Call) -> Reply:
        """Answer the secrets, including ended ones, by id."""
        self._require_own(call)
        found = list_secrets(call.services, call.parameters["client_id"], kind=self._kind)
        return call.page(found, _id, whole=True)

    def list_due(self, call: Call) -> Reply:
        """Answer a page of the secrets that end soon, the first one first.

        Before them stand those that were made with another pepper.
        """
        query: DueQuery = call.query
        within = timedelta(seconds=query.within_seconds)
        place = call.after()
        if isinstance(place, str):
            detail = "An earlier release made it: begin with the first page."
            raise Problem("invalid-cursor", detail)
        found = list_some_due(
            call.services,
            kind=self._kind,
            within=within,
            after=None if place is None else DuePlace(*place),
            limit=query.most + 1,
        )
        return call.page(found, place_of)

    def load(self, call: Call) -> SecretView:
        """Return the secret of the path; in a change, its client is locked."""
        self._require_own(call)
        lock_client(call)
        return self._find(call, call.parameters["secret_id"])

    def show(self, call: Call) -> Reply:
        """Answer a secret."""
        return Reply(self.load(call))

    def add(self, call: Call) -> Reply:
        """Add a secret, which the answer shows once."""
        lock_client(call)
        body: NewSecretBody = call.body
        added = add_secret(
            call.services,
            call.parameters["client_id"],
            kind=self._kind,
            actor=call.caller.actor,
            description=body.description,
            expires_at=body.expires_at,
            imported=imported_secret(call),
        )
        return self._created(call, shown_once(call, added), {})

    def rotate(self, call: Call) -> Reply:
        """Add a secret, and plan the end of those that work."""
        lock_client(call)
        body: Rotation = call.body
        seconds = body.end_old_when_unused_seconds
        done = rotate_secret(
            call.services,
            call.parameters["client_id"],
            kind=self._kind,
            actor=call.caller.actor,
            end_old_at=body.end_old_at,
            end_old_when_unused=None if seconds is None else timedelta(seconds=seconds),
            description=body.description,
            expires_at=body.expires_at,
            imported=imported_secret(call),
        )
        return self._created(call, shown_once(call, done.new), {"old": done.old})

    def repeat(self, call: Call, secret_id: str) -> Reply:
        """Answer the secret that an earlier request with the same key added."""
        self._require_own(call)
        client_id = quote(call.parameters["client_id"], safe="")
        hint = f"POST /admin/v1/{self._path}/{client_id}/secrets adds another."
        return Reply(self._find(call, secret_id), {"secret_hint": hint}, location=secret_id)

    def end(self, call: Call) -> Reply:
        """End a secret permanently."""
        query: EndQuery = call.query
        ended = end_secret(
            call.services,
            call.parameters["client_id"],
            call.parameters["secret_id"],
            kind=self._kind,
            actor=call.caller.actor,
            at=query.at,
        )
        return Reply(ended)

    def _require_own(self, call: Call) -> None:
        """Refuse the secrets of a client of which the caller sees a part alone."""
        if not call.limits:
            return
        with call.services.database.reading() as session:
            row = session.get(Client, call.parameters["client_id"])
            if row is not None and row.kind == self._kind:
                require_own_row(call, row)

    def _created(self, call: Call, new: NewSecretView | None, members: dict[str, Any]) -> Reply:
        if new is None:
            raise RuntimeError("no secret was added")
        if new.value is not UNSET:
            members = {"value": new.value, **members}
        return Reply(self._find(call, new.id), members, subject=new.id, location=new.id)

    def _find(self, call: Call, secret_id: str) -> SecretView:
        client_id = call.parameters["client_id"]
        for secret in list_secrets(call.services, client_id, kind=self._kind):
            if secret.id == secret_id:
                return secret
        raise NotFoundError(f"{client_id!r} has no secret {secret_id!r}.")


_id: Callable[[SecretView], str] = lambda secret: secret.id  # noqa: E731 - used as a key
