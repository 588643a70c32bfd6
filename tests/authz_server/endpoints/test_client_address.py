"""The client's address: which header is believed, and every spelling of an address in it."""

import ipaddress
import time
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError

PROXY = "10.0.0.1"
CLIENT = "203.0.113.9"
PROXIES = ("10.0.0.0/8", "fd00::/8", "192.0.2.1/32")
X_FORWARDED_FOR, FORWARDED, X_REAL_IP = "x-forwarded-for", "forwarded", "x-real-ip"
READERS = {
    header: ClientAddressReader(PROXIES, header)
    for header in (X_FORWARDED_FOR, FORWARDED, X_REAL_IP)
}
LISTS = (X_FORWARDED_FOR, X_REAL_IP)

proxies = st.sampled_from(["10.0.0.1", "10.255.3.4", "fd00::7", "192.0.2.1"])
clients = st.sampled_from([CLIENT, "192.0.2.2", "2001:db8::1", "9.9.9.9"])
junk = st.one_of(
    st.text(max_size=1_500),
    st.text(alphabet='for=",;:[]_\\ 19.', max_size=200),
    st.lists(st.one_of(proxies, clients, st.just("unknown")), max_size=60).map(", ".join),
)


def request_of(peer, headers):
    return Request("POST", "/oauth2/token", headers=headers, peer=peer)


def read(value, peer=PROXY, header=X_FORWARDED_FOR):
    return READERS[header].read(request_of(peer, {header: value}))


def refused(value, peer=PROXY, header=X_FORWARDED_FOR):
    with pytest.raises(OAuthError) as caught:
        read(value, peer, header)
    error = caught.value
    assert (error.reason, error.error, error.status_code) == (
        "forwarded_address_malformed",
        "invalid_request",
        400,
    )
    return error.detail


def outcome(value, peer, header):
    """Return the address, or the reason why there is none."""
    try:
        return read(value, peer, header)
    except OAuthError as error:
        return error.reason


def forwarded(address):
    """Return an element of ``Forwarded`` with this address, as RFC 7239, 6 writes it."""
    return f'for="[{address}]"' if ":" in address else f"for={address}"


@given(peer=clients, value=junk, header=st.sampled_from(sorted(READERS)))
def test_a_stranger_is_where_the_connection_comes_from(peer, value, header):
    """Case I100."""
    assert read(value, peer, header) == peer


@given(peer=st.one_of(proxies, clients), value=junk)
def test_without_trusted_proxies_no_header_counts(peer, value):
    """Case I100."""
    assert ClientAddressReader(()).read(request_of(peer, {X_FORWARDED_FOR: value})) == peer


@given(peer=proxies, client=clients, forged=junk, between=st.lists(proxies, max_size=3))
def test_what_stands_left_of_the_client_changes_nothing(peer, client, forged, between):
    """Case I100."""
    hops = [client, *between]
    assert read(",".join([forged, *[f" {hop} " for hop in hops]]), peer) == client
    rfc7239 = ", ".join([forged, *map(forwarded, hops)])
    assert read(rfc7239, peer, FORWARDED) == client


@example(peer=PROXY, value="10.0.0.2, , 10.0.0.3", header=X_FORWARDED_FOR)
@example(peer=PROXY, value='for="\\"', header=FORWARDED)
@given(
    peer=st.one_of(proxies, clients, st.text(max_size=20)),
    value=junk,
    header=st.sampled_from(sorted(READERS)),
)
def test_the_answer_is_an_address_or_empty_or_a_refusal(peer, value, header):
    found = outcome(value, peer, header)
    assert found in {"", "forwarded_address_malformed"} or found == str(ipaddress.ip_address(found))


SPELLINGS = {
    "1.2.3.4": "1.2.3.4",
    "1.2.3.4:5678": "1.2.3.4",
    "1.2.3.4:0": "1.2.3.4",
    "2001:db8::1": "2001:db8::1",
    "2001:DB8:0:0:0:0:0:1": "2001:db8::1",
    "2001:db8::192.0.2.33": "2001:db8::c000:221",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:db8::1]:443": "2001:db8::1",
    "::ffff:1.2.3.4": "1.2.3.4",
    "::FFFF:102:304": "1.2.3.4",
    "[::ffff:1.2.3.4]:443": "1.2.3.4",
    "fe80::1%eth0": "fe80::1",
    "[fe80::1%25eth0]:443": "fe80::1",
    "[fe80::1%en-0.7_x~y]": "fe80::1",
}
FORWARDED_SPELLINGS = {
    "for=192.0.2.60": "192.0.2.60",
    "For=192.0.2.60": "192.0.2.60",
    'FOR="192.0.2.60"': "192.0.2.60",
    'for="192.0.2.60:4711"': "192.0.2.60",
    "for=192.0.2.60:4711": "192.0.2.60",
    'for="192.0.2.60:_port-7"': "192.0.2.60",
    'for="[2001:db8:cafe::17]"': "2001:db8:cafe::17",
    'for="[2001:db8:cafe::17]:4711"': "2001:db8:cafe::17",
    "for=[2001:db8::1]:4711": "2001:db8::1",
    'for="2001:db8::1"': "2001:db8::1",
    r'for="\1\92.0.2.6\0"': "192.0.2.60",
    r'for="\[2001\:db8\:\:1\]:4711"': "2001:db8::1",
    "for=192.0.2.60;proto=http;by=203.0.113.43": "192.0.2.60",
    "proto=https;for=192.0.2.60": "192.0.2.60",
    "by=203.0.113.43; for=192.0.2.60 ; proto=http": "192.0.2.60",
    ";;for=192.0.2.60;": "192.0.2.60",
    'host="a,b;for=9.9.9.9";for=192.0.2.60': "192.0.2.60",
    r'for=192.0.2.60;host="a\", for=9.9.9.9;b=\"\\"': "192.0.2.60",
    "for=9.9.9.9, for=192.0.2.60": "192.0.2.60",
    "for=9.9.9.9,for=192.0.2.60,for=10.0.0.2": "192.0.2.60",
    "for=192.0.2.60, , ,": "192.0.2.60",
}


@pytest.mark.parametrize("header", LISTS)
@pytest.mark.parametrize(("spelling", "address"), SPELLINGS.items())
@pytest.mark.parametrize("frame", ["{}", " {}\t", '"{}"', ',\t, "{}" ,', "9.9.9.9,{},10.0.0.2"])
def test_every_spelling_in_a_list_is_the_canonical_address(header, spelling, address, frame):
    """Case I100."""
    assert read(frame.format(spelling), header=header) == address


@pytest.mark.parametrize(("value", "address"), FORWARDED_SPELLINGS.items())
def test_every_spelling_of_rfc_7239_is_the_canonical_address(value, address):
    """Case I100."""
    assert read(value, header=FORWARDED) == address


@pytest.mark.parametrize(("spelling", "address"), SPELLINGS.items())
def test_every_spelling_of_a_list_is_understood_in_quotes_by_rfc_7239(spelling, address):
    assert read(f'for="{spelling}"', header=FORWARDED) == address


MALFORMED = [
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "0x01020304",
    "16909060",
    "1.2.3.4/32",
    "1.2.3.4:",
    "1.2.3.4:123456",
    "1.2.3.4:https",
    "1.2.3.4 5.6.7.8",
    "1.2.3.4;5.6.7.8",
    "1.2.3.4%eth0",
    "[1.2.3.4]",
    "[2001:db8::1",
    "2001:db8::1]",
    "[2001:db8::1]443",
    "[2001:db8::1%]",
    "[2001:db8::1%a b]",
    "2001:db8::1::2",
    "2001:db8::12345",
    ":",
    "[]",
    "localhost",
    "client.example.org",
    "unknown-client",
    "_",
    "-",
    "null",
    "\N{FULLWIDTH DIGIT ONE}.2.3.4",
    "1.2.3.\N{ARABIC-INDIC DIGIT FOUR}",
    "' OR 1=1",
    '""',
    '"',
]
FORWARDED_MALFORMED = [
    "192.0.2.60",
    "for",
    "for=",
    "for =192.0.2.60",
    "for= 192.0.2.60",
    'for=""',
    'for="192.0.2.60',
    'for=192.0.2.60"',
    'for="192.0.2.60"x',
    'for="192.0.2.60" proto=http',
    "for=192.0.2.60;proto",
    "for=192.0.2.60;for=192.0.2.61",
    "for=192.0.2.60;FOR=192.0.2.60",
    r'for="192.0.2.60\"',
    "for=192.0.2.60/32",
    '"',
    "for=192.0.2.60;=x",
]


@pytest.mark.parametrize("header", LISTS)
@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_address_from_a_proxy_is_refused(header, value):
    """Case I100."""
    assert refused(value, header=header).startswith(f"{header}: ")
    refused(f"{CLIENT}, {value}, 10.0.0.2", header=header)


@pytest.mark.parametrize("value", [*FORWARDED_MALFORMED, *(f'for="{v}"' for v in MALFORMED[:-2])])
def test_a_malformed_forwarded_element_from_a_proxy_is_refused(value):
    """Case I100."""
    assert refused(value, header=FORWARDED).startswith("forwarded: ")
    refused(f"for={CLIENT}, {value}", header=FORWARDED)


@pytest.mark.parametrize("value", ["for=x, ", "", 'for="', 'a="\\', "x,,y"])
def test_what_a_client_sends_malformed_does_not_count_behind_its_address(value):
    """Case I100."""
    assert read(f"{value}, {CLIENT}, 10.0.0.2") == CLIENT
    assert read(f"{value}, for={CLIENT}, for=10.0.0.2", header=FORWARDED) == CLIENT
    quoted = f'{value}, for="{CLIENT}:1";host="a,b", for=10.0.0.2'
    assert read(quoted, header=FORWARDED) == CLIENT


@pytest.mark.parametrize("hidden", ["unknown", "UNKNOWN", "unknown:80", "_hidden", "_a.B-9:_x"])
def test_a_hidden_client_has_the_address_of_the_proxy_that_hides_it(hidden):
    """Case I100."""
    assert read(f"{CLIENT}, {hidden}") == PROXY
    assert read(f"{CLIENT}, {hidden}, 10.0.0.2, 10.0.0.3") == "10.0.0.2"
    assert read(f'for={CLIENT}, for="{hidden}"', header=FORWARDED) == PROXY
    assert read(f'for="{hidden}";proto=https, for=10.0.0.2', header=FORWARDED) == "10.0.0.2"


@pytest.mark.parametrize("element", ["proto=https", 'by=10.0.0.1;host="x"', ";"])
def test_an_element_without_for_hides_the_client(element):
    """RFC 7239, 4: every parameter is optional."""
    assert read(f"for={CLIENT}, {element}", header=FORWARDED) == PROXY


def test_a_chain_of_trusted_proxies_alone_is_the_farthest_of_them():
    assert read("10.0.0.4, fd00::7, 10.0.0.2") == "10.0.0.4"
    assert read('for=10.0.0.4, for="[fd00::7]"', header=FORWARDED) == "10.0.0.4"


@pytest.mark.parametrize("header", READERS)
@pytest.mark.parametrize("value", ["", " ", ",", " ,\t, "])
def test_an_empty_list_from_a_proxy_is_an_absent_header(header, value):
    assert read(value, header=header) == PROXY


@pytest.mark.parametrize("header", READERS)
def test_without_the_header_a_proxy_is_the_client(header):
    """As in the health checks of a load balancer."""
    assert READERS[header].read(request_of(PROXY, {})) == PROXY
    assert READERS[header].read(request_of("fd00:0::7", {})) == "fd00::7"


OTHER_NAMES = {
    header: sorted(
        {*READERS, "x_forwarded_for", "x-forwarded_for", "x_real_ip", "x-client-ip"} - {header}
    )
    for header in READERS
}


@pytest.mark.parametrize("header", READERS)
def test_the_configured_header_alone_counts(header):
    """Case I100."""
    others = dict.fromkeys(OTHER_NAMES[header], "9.9.9.9")
    assert READERS[header].read(request_of(PROXY, others)) == PROXY
    value = f"for={CLIENT}" if header == FORWARDED else CLIENT
    assert READERS[header].read(request_of(PROXY, others | {header: value})) == CLIENT


@pytest.mark.parametrize("peer", ["", "unix:", "10.0.0.1.evil", "0x0a000001", "10.0.0"])
def test_a_peer_without_address_is_not_a_proxy(peer):
    assert read(CLIENT, peer) == ""
    assert not READERS[X_FORWARDED_FOR].is_trusted_proxy(peer)


def test_a_proxy_is_known_by_each_spelling_of_its_address():
    """A listener for both families reports IPv4 peers as mapped addresses."""
    assert read(CLIENT, "::ffff:10.0.0.1") == CLIENT
    assert read(CLIENT, "::ffff:11.0.0.1") == "11.0.0.1"
    assert read(CLIENT, "fd00:0000::7%eth0") == CLIENT
    assert read(f"{CLIENT}, ::ffff:10.0.0.2, [fd00::8]:443") == CLIENT


@pytest.mark.parametrize("network", ["::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "::/0", "0.0.0.0/0"])
def test_trusted_networks_may_be_written_as_mapped_addresses(network):
    reader = ClientAddressReader([network], X_FORWARDED_FOR)
    trusted = network != "::/0"
    assert reader.is_trusted_proxy("10.0.0.1") is trusted
    assert reader.is_trusted_proxy("::ffff:10.0.0.1") is trusted


def test_a_trusted_proxy_is_told_from_a_stranger():
    reader = READERS[FORWARDED]
    assert [reader.is_trusted_proxy(each) for each in ("10.9.9.9", "192.0.2.2", "fd00::1")] == [
        True,
        False,
        True,
    ]


HOSTILE = {
    "addresses of proxies": (X_FORWARDED_FOR, "10.0.0.1," * 910),
    "commas": (X_FORWARDED_FOR, "," * 8_192),
    "digits": (X_FORWARDED_FOR, "1" * 8_192),
    "colons": (X_FORWARDED_FOR, ":" * 8_192),
    "zone": (X_FORWARDED_FOR, "fe80::1%" + "a" * 8_000),
    "identifier": (X_FORWARDED_FOR, "_" + "a" * 8_000 + ":"),
    "elements": (FORWARDED, "for=10.0.0.1," * 630),
    "quotation marks": (FORWARDED, '"' * 8_191),
    "quoted strings": (FORWARDED, 'a="";' * 1_600 + "for=x"),
    "backslashes": (FORWARDED, 'for="' + "\\" * 8_000 + '"'),
    "escaped quotation marks": (FORWARDED, 'for="' + '\\"' * 4_000 + '"'),
    "open quotation mark": (FORWARDED, 'for="' + "a," * 4_000),
    "pairs": (FORWARDED, "a=b;" * 2_000),
    "semicolons": (FORWARDED, ";" * 8_192),
    "blanks": (FORWARDED, "for=x;" + " " * 8_000 + "x"),
    "commas in quotes": (FORWARDED, 'a=",";' * 1_300),
    "name": (FORWARDED, "a" * 8_192),
}


def test_a_refusal_names_the_beginning_of_the_element_alone():
    assert refused("x" * 8_000) == f"x-forwarded-for: {'x' * 80!r}"
    value = 'for="' + "x" * 8_000
    assert refused(value, header=FORWARDED) == f"forwarded: {value[:80]!r}"


@pytest.mark.parametrize("peculiarity", HOSTILE)
def test_a_hostile_header_costs_little(peculiarity):
    """Case I100."""
    header, value = HOSTILE[peculiarity]
    started = time.process_time()
    outcome(value, PROXY, header)
    assert time.process_time() - started < 0.05


def test_many_addresses_do_not_grow_the_memory_without_bound():
    reader = ClientAddressReader(PROXIES)

    def send(numbers):
        for number in numbers:
            client = str(ipaddress.IPv4Address(0xCB007100 + number))
            assert reader.read(request_of(PROXY, {X_FORWARDED_FOR: client})) == client
            assert reader.read(request_of(client, {X_FORWARDED_FOR: "9.9.9.9"})) == client

    tracemalloc.start()
    try:
        send(range(2_000))
        before = tracemalloc.get_traced_memory()[0]
        send(range(2_000, 5_000))
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
