"""Settings of approvals: the acts of administrators that need a second person."""

from typing import Annotated, Literal, get_args

from msgspec import Meta

from authz_server.settings.constraints import Branch, refuse

#: An act that waits for the approval of a second person.
ApprovedAct = Literal[
    "scope.grant",
    "scope.grant_money",
    "client.widen_limits",
    "client.first_credential",
    "client.add_credential",
    "client.change_keys",
    "key.activate",
    "key.destroy",
    "stop.lift",
    "operator.change_role",
]
#: An emergency, which never waits: a second person confirms it afterwards.
ConfirmedAct = Literal["key.revoke", "stop.set", "token.revoke"]

Act = ApprovedAct | ConfirmedAct
#: A kind of identity: a local operator with a passkey, a person of the provider, or a client.
Decider = Literal["local", "provider", "client"]

#: To grant a scope to a client, to take a spelling from a scope, or to add one to a granted scope.
GRANT: Act = "scope.grant"
#: To widen what a client may do by another field than its scopes and keys, to enable it, or to
#: create a token by which clients register further grant types.
WIDEN_LIMITS: Act = "client.widen_limits"
#: To register a client with a secret or a key, to add its first secret, or to create a token by
#: which clients register.
FIRST_CREDENTIAL: Act = "client.first_credential"
#: To grant a scope of risk ``money`` to a client, or to widen its limits of payments.
GRANT_MONEY: Act = "scope.grant_money"
#: To add a secret to a client that has or had a credential, or to create a deleted client again.
ADD_CREDENTIAL: Act = "client.add_credential"
#: To change the keys of a client, its certificates, or its authentication method.
CHANGE_KEYS: Act = "client.change_keys"
#: To activate a signing key before the ring does so itself.
ACTIVATE_KEY: Act = "key.activate"
#: To destroy the private keys of a ring that are older than every key in use.
DESTROY_KEYS: Act = "key.destroy"
#: To lift a stop of the kill switch.
LIFT_STOP: Act = "stop.lift"
#: To change the roles of an operator, to enable one with roles, to issue a link for its passkey, to
#: grant a client a scope of the admin API, or to widen what such a client administers.
CHANGE_ROLE: Act = "operator.change_role"
#: To revoke a signing key.
REVOKE_KEY: Act = "key.revoke"
#: To stop a scope, a client, a resource server or a programme.
SET_STOP: Act = "stop.set"
#: To revoke tokens.
REVOKE_TOKENS: Act = "token.revoke"

#: The acts that wait for an approval.
APPROVED_ACTS: frozenset[str] = frozenset(get_args(ApprovedAct))


class ApprovalSettings(Branch, frozen=True):
    """``[approvals]``: the acts that need a second person, and how long they wait."""

    acts: tuple[Act, ...] = ()
    deciders: tuple[Decider, ...] = get_args(Decider)
    lifetime_hours: Annotated[int, Meta(ge=1, le=720)] = 24
    break_glass: bool = True
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 400

    def __post_init__(self) -> None:
        if len(set(self.acts)) < len(self.acts):
            refuse("acts", "an act is named twice")
        if not self.deciders or len(set(self.deciders)) < len(self.deciders):
            refuse(
                "deciders", 'name each of "local", "provider" and "client" once at most, and one'
            )
