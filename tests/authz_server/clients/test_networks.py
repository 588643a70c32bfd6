"""The networks of a client: which values are stored, and which addresses they admit."""

import pytest

from authz_server.clients.networks import AllowedNetworks, check_networks
from authz_server.clients.properties import check_properties
from authz_server.errors import InvalidChangeError


def test_networks_are_stored_in_canonical_form():
    """An address is a network of one; IPv4-mapped IPv6 is IPv4."""
    given = ["192.0.2.7", "2001:DB8::/32", "::ffff:198.51.100.0/120", "192.0.2.7/32"]
    assert check_networks(given) == ["192.0.2.7/32", "2001:db8::/32", "198.51.100.0/24"]
    assert check_networks("10.0.0.0/8") == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        None,
        7,
        [7],
        [""],
        ["localhost"],
        ["10.0.0.1/8"],
        ["10.0.0.0/33"],
        ["10.0.0.0/8", "x"],
        ["fe80::1%eth0/64"],
        ["10.0.0.0/8"] * 101,
    ],
)
def test_other_values_are_refused_with_the_name_of_the_property(value):
    """Bits of a host in a network are a slip, so that they are refused."""
    with pytest.raises(InvalidChangeError, match="allowed_networks"):
        check_networks(value)


def test_the_rule_is_that_of_the_property():
    """An empty list would admit every address if it were stored."""
    with pytest.raises(InvalidChangeError, match="allowed_networks"):
        check_properties({"allowed_networks": []})


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8:0:1::9", True),
        ("2001:db8:0:2::9", False),
        ("", False),
        ("unix:", False),
        ("10.1.2.3, 10.1.2.4", False),
        ("1" * 5_000, False),
    ],
)
def test_an_address_is_admitted_by_the_networks_alone(address, admitted):
    """Text that is not an address, such as that of a socket, is in no network."""
    assert AllowedNetworks(["10.0.0.0/8", "2001:db8:0:1::/64"]).contains(address) is admitted
