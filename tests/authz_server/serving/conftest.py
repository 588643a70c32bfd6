"""Fixtures of the tests of serving."""

from support.front_requests import hold, make_site
from support.loop_queries import on_any_loop, on_loop

__all__ = ["hold", "make_site", "on_any_loop", "on_loop"]
