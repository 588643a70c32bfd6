from collections.abc import Iterator

import pytest

from support.databases import copied_database
from support.remote_site import RemoteSite, running_remote_site


@pytest.fixture(scope="module")
def site(request, tmp_path_factory) -> Iterator[RemoteSite]:
    """A server that the tests of one file share; the way to it is the same for each database."""
    folder = tmp_path_factory.mktemp("remote")
    with (
        copied_database(request, "sqlite", folder) as url,
        running_remote_site(folder, url) as site,
    ):
        yield site
