"""Initial access tokens of dynamic registration: list, show, create and end them."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.calls import Call, Reply
from authz_server.admin.resources.clients import Instant, Names
from authz_server.clients.registration.initial_tokens import MAXIMUM_USES
from authz_server.clients.validation import DEFAULT_GRANT_TYPES
from authz_server.operations.caller_power import require_no_more_of_token
from authz_server.operations.registration_tokens import (
    RegistrationTokenView,
    create_registration_token,
    end_registration_token,
    get_registration_token,
    list_registration_tokens,
)


class NewToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An initial access token to create (RFC 7591, 1.2).

    Attributes:
        expires_at: the time after which it is refused.
        uses: the number of registrations that it permits.
        scopes: the scopes that a client may register; a trailing ``/*`` stands for all below.
        grant_types: the grant types that a client may register.
        organisation: the organisation of the clients.
        description: its purpose.
    """

    expires_at: Instant
    uses: Annotated[int, Meta(ge=1, le=MAXIMUM_USES)] = 1
    scopes: Names = ()
    grant_types: Names = DEFAULT_GRANT_TYPES
    organisation: str | UnsetType = UNSET
    description: str = ""


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to a new token has beside those of the token.

    Attributes:
        value: the token, which cannot be read again; absent in a dry run and in the answer to a
            repeated request.
        secret_hint: how to get another; in the answer to a repeated request alone.
    """

    value: str | UnsetType = UNSET
    secret_hint: str | UnsetType = UNSET


def list_all(call: Call) -> Reply:
    """Answer a page of initial access tokens, also those that have ended, by id."""
    found = sorted(list_registration_tokens(call.services), key=lambda each: each.id)
    return call.page(found, lambda each: each.id, whole=True)


def load(call: Call) -> RegistrationTokenView:
    """Return the token of the path."""
    return get_registration_token(call.services, call.parameters["token_id"])


def show(call: Call) -> Reply:
    """Answer an initial access token, without its value."""
    return Reply(load(call))


def create(call: Call) -> Reply:
    """Create an initial access token, which the answer shows once."""
    fields = call.given()
    organisations = call.limits.organisations or ()
    if len(organisations) == 1:
        fields.setdefault("organisation", *organisations)
    done = create_registration_token(call.services, actor=call.caller.actor, **fields)
    require_no_more_of_token(call.caller, done.view.scopes)
    members = {} if call.dry_run else {"value": done.value}
    return Reply(done.view, members, subject=done.view.id, location=done.view.id)


def repeat(call: Call, token_id: str) -> Reply:
    """Answer the token that an earlier request with the same key created."""
    members = {"secret_hint": "POST /admin/v1/registration-tokens with another key creates one."}
    return Reply(get_registration_token(call.services, token_id), members, location=token_id)


def end(call: Call) -> Reply:
    """End an initial access token permanently; registered clients stay."""
    return Reply(
        end_registration_token(call.services, call.parameters["token_id"], actor=call.caller.actor)
    )
