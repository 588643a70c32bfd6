"""Fixtures of the tests of the console."""

from support.console_site import console, hostile

__all__ = ["console", "hostile"]
