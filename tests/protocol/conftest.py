"""Fixtures of the protocol tests."""

from support.assertion_cast import cast
from support.protocol import protocol, start_protocol
from support.refusing import caller, claims, endpoint, refuse

__all__ = ["caller", "cast", "claims", "endpoint", "protocol", "refuse", "start_protocol"]
