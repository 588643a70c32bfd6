import pytest

from support.people_site import running_people_site


@pytest.fixture(scope="module")
def people(module_database_url: str, tmp_path_factory):
    """The pages of people, which the tests of one file share, once for each dialect."""
    with running_people_site(tmp_path_factory.mktemp("people"), module_database_url) as site:
        yield site
