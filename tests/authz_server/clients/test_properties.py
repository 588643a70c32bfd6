"""Optional properties of clients."""

import pytest

from authz_server.clients.properties import NO_PROPERTIES, check_properties, read_properties
from authz_server.errors import InvalidChangeError


def test_an_unknown_property_is_refused_by_name():
    with pytest.raises(InvalidChangeError, match="colour: there is no such property"):
        check_properties({"colour": "blue"})


@pytest.mark.parametrize("changes", [["colour"], "colour", 7])
def test_properties_are_an_object(changes: object):
    with pytest.raises(InvalidChangeError, match="properties: use an object"):
        check_properties(changes)


def test_a_property_of_a_newer_release_is_ignored():
    assert read_properties({"colour": "blue"}) == NO_PROPERTIES
