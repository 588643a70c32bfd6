"""Fixtures of the protocol tests."""

from support.protocol import protocol, start_protocol

__all__ = ["protocol", "start_protocol"]
