"""Audit events of operators: their log-ins, sessions and changes."""

from typing import Literal

from authz_server.audit.event import Act, Event


class OperatorSignedIn(Event, frozen=True, kw_only=True, tag="operator.signed_in"):
    """An operator logged in, or showed again that it is them.

    Attributes:
        operator: the operator's name.
        operator_id: the operator's id; of a provider's person, ``openid:`` and its ``sub``.
        method: ``passkey`` or ``openid``.
        again: whether a session was confirmed by a fresh log-in.
        issuer: the provider; empty for a passkey.
        groups: the groups that the provider named.
        amr: the authentication methods (RFC 8176).
    """

    operator: str
    operator_id: str
    method: Literal["passkey", "openid"]
    again: bool = False
    issuer: str = ""
    groups: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()
    outcome: Literal["success"] = "success"


class OperatorSignInRefused(Event, frozen=True, kw_only=True, tag="operator.sign_in_refused"):
    """A log-in, an enrolment or a form of a log-in page was refused.

    Attributes:
        operator: the operator, as far as known.
        path: the path of the request, without the token of an enrolment link.
        reason: the reason, for example ``passkey_refused``.
        detail: further details.
        count: the number of refusals that this record stands for.
    """

    operator: str = ""
    path: str
    reason: str
    detail: str = ""
    count: int = 1
    outcome: Literal["refused"] = "refused"


class OperatorSignedOut(Event, frozen=True, kw_only=True, tag="operator.signed_out"):
    """An operator logged out."""

    operator: str
    operator_id: str
    outcome: Literal["success"] = "success"


class OperatorSessionEnded(Event, frozen=True, kw_only=True, tag="operator.session_ended"):
    """A request came with a session that counts no longer.

    Attributes:
        reason: ``idle``, ``absolute``, ``disabled`` or ``no_role``.
    """

    operator: str
    operator_id: str
    reason: Literal["idle", "absolute", "disabled", "no_role"]
    outcome: Literal["success"] = "success"


class OperatorChanged(Act, frozen=True, kw_only=True, tag="operator.changed"):
    """An operator, their roles or passkeys were changed.

    Attributes:
        actor: the actor of the change.
        action: the change, for example ``operator.created``.
        operator: the operator's name.
    """

    actor: str
    action: str
    operator: str
    outcome: Literal["success"] = "success"


#: The events, in the order of ``docs/events.md``.
EVENTS: tuple[type[Event], ...] = (
    OperatorSignedIn,
    OperatorSignInRefused,
    OperatorSignedOut,
    OperatorSessionEnded,
    OperatorChanged,
)
