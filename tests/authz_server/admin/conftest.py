import pytest

from support.admin_site import running_admin_site
from support.administrators import Administration, make_administration
from support.approval_site import running_approval_site


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory):
    """An admin API that the tests of one file share, once for each dialect."""
    with running_admin_site(tmp_path_factory.mktemp("admin"), module_database_url) as site:
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
