"""The paths of the pages of people."""

from collections.abc import Callable

from flask import Response

#: The path to which the provider sends the browser back.
CALLBACK = "/login/openid/callback"
#: The beginning of the path of an enrolment link; its token follows.
ENROL = "/enrol/"

#: A method, a path, and the view that answers.
PageRoute = tuple[str, str, Callable[..., Response]]
