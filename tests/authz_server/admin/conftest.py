import pytest

from support.admin_site import running_admin_site


@pytest.fixture(scope="module")
def site(module_database_url: str, tmp_path_factory):
    """An admin API that the tests of one file share, once for each dialect."""
    with running_admin_site(tmp_path_factory.mktemp("admin"), module_database_url) as site:
        yield site
