from collections.abc import Callable
from pathlib import Path

import pytest

from authz_server.assembly.operator import operator_services
from authz_server.operations.admin_api import register_admin_api
from authz_server.operations.scopes import import_g2p_connect
from authz_server.settings import load_settings
from support.admin_site import running_admin_site
from support.administrators import Administration, make_administration
from support.approval_site import running_approval_site
from support.parties import ACTOR, Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_settings, write_shared_secrets


def _make_keys_and_scopes(url: str, folder: Path) -> None:
    write_shared_secrets(folder)
    settings = load_settings(write_settings(folder, url, {}))
    Parties(settings, SecretsWatch()).create_first_keys()
    with operator_services(settings) as services:
        import_g2p_connect(services, actor=ACTOR)
        register_admin_api(services, actor=ACTOR)


@pytest.fixture(scope="session")
def prepare(fill_database) -> Callable[[str, Path], None]:
    """A function of an unused database and the folder of a site with the usual ring.

    The site finds its keys and scopes there. They are made once for each dialect, then copied.
    """

    def prepare(url: str, folder: Path) -> None:
        fill_database(url, "admin", _make_keys_and_scopes)
        write_shared_secrets(folder)

    return prepare


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory):
    """An admin API that the tests of one file share, once for each dialect."""
    directory = tmp_path_factory.mktemp("admin")
    with running_admin_site(directory, module_database_url) as site:
        yield site


@pytest.fixture(scope="module")
def ours(module_database_url: str, tmp_path_factory) -> Administration:
    """Rows of a caller with limits and of others, on each database."""
    directory = tmp_path_factory.mktemp("limits")
    with running_admin_site(directory, module_database_url) as site:
        yield make_administration(site)


@pytest.fixture(scope="module")
def approvals(module_database_url: str, tmp_path_factory):
    """The admin API with every act of approvals, once for each dialect."""
    directory = tmp_path_factory.mktemp("approvals")
    with running_approval_site(directory, module_database_url) as site:
        yield site
