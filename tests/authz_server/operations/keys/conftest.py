from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager

import pytest

from authz_server.operations.keys.context import KeyContext, find_logins, open_context
from authz_server.operations.keys.first_keys import create_first_keys
from authz_server.settings import load_settings
from support.settings_file import write_settings

ACTOR = "operator:ada"
OpenKeys = Callable[..., AbstractContextManager[KeyContext]]


@pytest.fixture
def settings(database_url, tmp_path):
    """The settings of an installation with one ring, without keys, on each database."""
    return load_settings(write_settings(tmp_path, database_url, {}))


@pytest.fixture
def open_keys(settings) -> OpenKeys:
    """A function that opens a context as a command or the admin API would."""

    @contextmanager
    def open_keys(role="order", *, looking=False):
        logins = find_logins(settings, role, looking=looking, environ={})
        with open_context(settings, logins, role, actor=ACTOR, looking=looking) as context:
            yield context

    return open_keys


@pytest.fixture
def keyed(open_keys) -> OpenKeys:
    """As `open_keys`, with the first keys."""
    with open_keys() as context:
        create_first_keys(context)
    return open_keys
