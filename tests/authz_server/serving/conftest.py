"""Fixtures of the tests of serving."""

from support.loop_queries import on_any_loop, on_loop

__all__ = ["on_any_loop", "on_loop"]
