"""Fixtures of the protocol tests."""

from support.assertion_cast import cast
from support.mtls import mtls, one_server
from support.protocol import protocol, start_protocol
from support.refusing import caller, claims, endpoint, refuse

__all__ = [
    "caller",
    "cast",
    "claims",
    "endpoint",
    "mtls",
    "one_server",
    "protocol",
    "refuse",
    "start_protocol",
]
