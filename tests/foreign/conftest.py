"""Fixtures of the tests with software that others wrote."""

from support.protocol import protocol, start_protocol

__all__ = ["protocol", "start_protocol"]
