"""Fixtures of the protocol tests."""

from support.protocol import protocol, start_protocol
from support.refusing import caller, claims, endpoint, refuse

__all__ = ["caller", "claims", "endpoint", "protocol", "refuse", "start_protocol"]
