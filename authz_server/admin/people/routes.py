"""The paths of the pages of people."""

from collections.abc import Callable

from flask import Response

#: The path of a log-in at the provider.
AT_PROVIDER = "/login/openid"
#: The path to which the provider sends the browser back.
CALLBACK = "/login/openid/callback"
#: The paths whose requests wait for the provider.
SLOW_PATHS = frozenset({AT_PROVIDER, CALLBACK})
#: The beginning of the path of an enrolment link; its token follows.
ENROL = "/enrol/"

#: A method, a path, and the view that answers.
PageRoute = tuple[str, str, Callable[..., Response]]
