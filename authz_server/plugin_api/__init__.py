"""The published interface: everything that a plugin may import from this project.

A name is removed only with a major version; see ``docs/plugins.md``. The tests of a plugin also
import :mod:`authz_server.plugin_api.testing`.
"""

from authz_server.assembly.plugin_services import (
    PluginServices,
    require_authorities,
    require_url,
)
from authz_server.audit.chain_events import AuditCheckpoint, AuditContinued
from authz_server.audit.change_events import CHANGE_EVENTS
from authz_server.audit.events import (
    ClientChanged,
    CutOffRecorded,
    DeclarationApplied,
    Event,
    EventPollRefused,
    EventUndelivered,
    IntrospectionRefused,
    KeyAlarm,
    KeyChanged,
    RegistrationChanged,
    RegistrationRefused,
    RequestRefused,
    RevocationRefused,
    ScopeChanged,
    SecretDue,
    ServerStarted,
    ServerStopped,
    SettingsLoaded,
    SignatureMade,
    StopLifted,
    StopSet,
    TokenExchanged,
    TokenIssued,
    TokenOfTaintedKey,
    TokenRefused,
    TokenRevoked,
    TokenRevoking,
)
from authz_server.audit.operator_events import (
    OperatorChanged,
    OperatorSessionEnded,
    OperatorSignedIn,
    OperatorSignedOut,
    OperatorSignInRefused,
)
from authz_server.clients.authentication.method import (
    AuthenticationRequest,
    ClientAuthenticationMethod,
    Credentials,
    Reading,
    Verdict,
)
from authz_server.clients.cache import ClientEntry
from authz_server.clients.fetching import Fetcher, FetchError
from authz_server.clients.issuers import Issuer
from authz_server.clients.outbound import Reply
from authz_server.errors import OAuthError
from authz_server.grants.base import TokenGrant, TokenRequest
from authz_server.hookspecs import (
    RESERVED_CLAIMS,
    AnsweredRequest,
    Narrowing,
    RefusalError,
    Revocation,
    TokenDecision,
    hookimpl,
)
from authz_server.logs import current_request_id, redact
from authz_server.logs import encode_line as encode_event
from authz_server.settings import Secret
from authz_server.settings.faults import refer_to, report_fault
from authz_server.tokens.authorization import Authorization
from authz_server.tokens.authorization_details_type import AuthorizationDetailsType, Window
from authz_server.tokens.introspection_source import IntrospectionSource
from authz_server.waiting import Lane, Step, Wait
from keys.backend import (
    BackendView,
    Capabilities,
    Creates,
    Destroys,
    Fences,
    Health,
    KeyBackend,
    TracedSignature,
    Version,
)
from keys.backends.registry import BackendContext
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendUnavailable,
    KeysError,
    TokenRefusedError,
    VersionUnusable,
)
from keys.jose.compact import MAXIMUM_TOKEN_CHARACTERS, parse_json_object
from keys.jose.foreign import ForeignToken, parse_foreign
from keys.jose.jwk import public_jwk

_CHANGES = {each.__name__: each for each in CHANGE_EVENTS.values()}
ChangeRequested = _CHANGES["ChangeRequested"]
ChangeApproved = _CHANGES["ChangeApproved"]
ChangeRejected = _CHANGES["ChangeRejected"]
ChangeWithdrawn = _CHANGES["ChangeWithdrawn"]
ChangeExpired = _CHANGES["ChangeExpired"]
ChangeFailed = _CHANGES["ChangeFailed"]
ChangeCarriedOut = _CHANGES["ChangeCarriedOut"]
ChangeConfirmed = _CHANGES["ChangeConfirmed"]

__all__ = [
    "MAXIMUM_TOKEN_CHARACTERS",
    "RESERVED_CLAIMS",
    "AnsweredRequest",
    "AuditCheckpoint",
    "AuditContinued",
    "AuthenticationRequest",
    "Authorization",
    "AuthorizationDetailsType",
    "BackendBroken",
    "BackendContext",
    "BackendDenied",
    "BackendUnavailable",
    "BackendView",
    "Capabilities",
    "ChangeApproved",
    "ChangeCarriedOut",
    "ChangeConfirmed",
    "ChangeExpired",
    "ChangeFailed",
    "ChangeRejected",
    "ChangeRequested",
    "ChangeWithdrawn",
    "ClientAuthenticationMethod",
    "ClientChanged",
    "ClientEntry",
    "Creates",
    "Credentials",
    "CutOffRecorded",
    "DeclarationApplied",
    "Destroys",
    "Event",
    "EventPollRefused",
    "EventUndelivered",
    "Fences",
    "FetchError",
    "Fetcher",
    "ForeignToken",
    "Health",
    "IntrospectionRefused",
    "IntrospectionSource",
    "Issuer",
    "KeyAlarm",
    "KeyBackend",
    "KeyChanged",
    "KeysError",
    "Lane",
    "Narrowing",
    "OAuthError",
    "OperatorChanged",
    "OperatorSessionEnded",
    "OperatorSignInRefused",
    "OperatorSignedIn",
    "OperatorSignedOut",
    "PluginServices",
    "Reading",
    "RefusalError",
    "RegistrationChanged",
    "RegistrationRefused",
    "Reply",
    "RequestRefused",
    "Revocation",
    "RevocationRefused",
    "ScopeChanged",
    "Secret",
    "SecretDue",
    "ServerStarted",
    "ServerStopped",
    "SettingsLoaded",
    "SignatureMade",
    "Step",
    "StopLifted",
    "StopSet",
    "TokenDecision",
    "TokenExchanged",
    "TokenGrant",
    "TokenIssued",
    "TokenOfTaintedKey",
    "TokenRefused",
    "TokenRefusedError",
    "TokenRequest",
    "TokenRevoked",
    "TokenRevoking",
    "TracedSignature",
    "Verdict",
    "Version",
    "VersionUnusable",
    "Wait",
    "Window",
    "current_request_id",
    "encode_event",
    "hookimpl",
    "parse_foreign",
    "parse_json_object",
    "public_jwk",
    "redact",
    "refer_to",
    "report_fault",
    "require_authorities",
    "require_url",
]
