"""The published interface: everything that a plugin may import from this project.

A name is removed only with a major version; see ``docs/plugins.md``. The tests of a plugin also
import :mod:`authz_server.plugin_api.testing`.
"""

from authz_server.audit.events import (
    ClientChanged,
    CutOffRecorded,
    DeclarationApplied,
    Event,
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
from authz_server.errors import OAuthError
from authz_server.grants.base import TokenGrant, TokenRequest
from authz_server.hookspecs import RESERVED_CLAIMS, RefusalError, TokenDecision, hookimpl
from authz_server.settings import Secret
from authz_server.tokens.authorization import Authorization
from authz_server.tokens.authorization_details_type import AuthorizationDetailsType, Window
from authz_server.waiting import Lane, Step
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
    VersionUnusable,
)
from keys.jose.jwk import public_jwk

__all__ = [
    "RESERVED_CLAIMS",
    "AuthenticationRequest",
    "Authorization",
    "AuthorizationDetailsType",
    "BackendBroken",
    "BackendContext",
    "BackendDenied",
    "BackendUnavailable",
    "BackendView",
    "Capabilities",
    "ClientAuthenticationMethod",
    "ClientChanged",
    "ClientEntry",
    "Creates",
    "Credentials",
    "CutOffRecorded",
    "DeclarationApplied",
    "Destroys",
    "Event",
    "Fences",
    "Health",
    "IntrospectionRefused",
    "KeyAlarm",
    "KeyBackend",
    "KeyChanged",
    "KeysError",
    "Lane",
    "OAuthError",
    "OperatorSessionEnded",
    "OperatorSignInRefused",
    "OperatorSignedIn",
    "OperatorSignedOut",
    "Reading",
    "RefusalError",
    "RegistrationChanged",
    "RegistrationRefused",
    "RequestRefused",
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
    "TokenRequest",
    "TokenRevoked",
    "TokenRevoking",
    "TracedSignature",
    "Verdict",
    "Version",
    "VersionUnusable",
    "Window",
    "hookimpl",
    "public_jwk",
]
