"""Fixtures of the protocol tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from authz_server.settings import load_settings
from support.assertion_cast import cast
from support.mtls import mtls, one_server
from support.parties import Parties
from support.protocol import Protocol, running_protocol
from support.refusing import caller, claims, endpoint, refuse
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets

__all__ = [
    "caller",
    "cast",
    "claims",
    "endpoint",
    "mtls",
    "one_server",
    "refuse",
]


def _make_keys_and_scopes(url: str, folder: Path) -> None:
    write_shared_secrets(folder)
    parties = Parties(load_settings(write_settings(folder, url, {})), SecretsWatch())
    parties.create_first_keys()
    parties.import_scopes()


@pytest.fixture(scope="session")
def prepare(fill_database) -> Callable[[str, Path], None]:
    """A function of an unused database and the folder of an application with the usual ring.

    The application finds its keys and scopes there. They are made once for each dialect, then
    copied.
    """

    def prepare(url: str, folder: Path) -> None:
        fill_database(url, _make_keys_and_scopes)
        write_shared_secrets(folder)

    return prepare


@pytest.fixture(scope="module")
def protocol(module_database_url: str, prepare, tmp_path_factory) -> Iterator[Protocol]:
    """An application that the tests of one file share, once for each dialect."""
    directory = tmp_path_factory.mktemp("protocol")
    prepare(module_database_url, directory)
    with running_protocol(directory, module_database_url, has_twin=True) as protocol:
        yield protocol


@pytest.fixture
def start_protocol(sqlite_url: str, prepare, tmp_path: Path) -> Iterator[Callable[..., Protocol]]:
    """A function of overrides: an application of this test alone, where no database matters."""
    with ExitStack() as running:

        def start(**overrides: Any) -> Protocol:
            if "keys" not in overrides:
                prepare(sqlite_url, tmp_path)
            return running.enter_context(running_protocol(tmp_path, sqlite_url, **overrides))

        yield start
