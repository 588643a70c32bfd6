"""The published interface: all that a plugin may import from this project.

Names leave this module only with a major version; see ``docs/plugins.md``.
"""

from authz_server.audit.events import (
    ClientChanged,
    CutOffRecorded,
    Event,
    IntrospectionRefused,
    KeyAlarm,
    KeyChanged,
    RequestRefused,
    RevocationRefused,
    ScopeChanged,
    ServerStarted,
    ServerStopped,
    SettingsLoaded,
    SignatureMade,
    TokenIssued,
    TokenOfTaintedKey,
    TokenRefused,
    TokenRevoked,
    TokenRevoking,
)
from authz_server.hookspecs import RESERVED_CLAIMS, RefusalError, TokenDecision, hookimpl
from authz_server.settings import Secret

__all__ = [
    "RESERVED_CLAIMS",
    "ClientChanged",
    "CutOffRecorded",
    "Event",
    "IntrospectionRefused",
    "KeyAlarm",
    "KeyChanged",
    "RefusalError",
    "RequestRefused",
    "RevocationRefused",
    "ScopeChanged",
    "Secret",
    "ServerStarted",
    "ServerStopped",
    "SettingsLoaded",
    "SignatureMade",
    "TokenDecision",
    "TokenIssued",
    "TokenOfTaintedKey",
    "TokenRefused",
    "TokenRevoked",
    "TokenRevoking",
    "hookimpl",
]
