"""Which connection makes room for a new one, and whose it is."""

import random
from collections import Counter
from itertools import count

import pytest

from authz_server.endpoints.client_address import ClientAddressReader
from authz_server.serving.senders import Phase, Sender, Senders, sender_of

PROXY = "10.0.0.1"


class Held:
    """A connection that notes in `closed` that it had to make room."""

    def __init__(self, site: "Site", phase: Phase, *, used: bool) -> None:
        self.site, self.phase, self.used = site, phase, used
        self.deadline = float(next(site.turns))
        self.sender: Sender | None = None

    def evict(self) -> None:
        """Close at once, as a connection does."""
        self.phase = Phase.CLOSING
        self.site.closed.append(self)
        self.site.senders.dismiss(self, self.sender)


class Site:
    """The limits of a worker, and its connections."""

    def __init__(self, *, maximum=1_000, each=1_000, bodies=1_000, proxy=PROXY) -> None:
        addresses = ClientAddressReader([proxy, "2001:db8:ffff::/48"], "x-forwarded-for")
        self.senders = Senders(
            maximum=maximum,
            maximum_each=each,
            maximum_bodies=bodies,
            is_exempt=addresses.is_trusted_proxy,
        )
        self.closed: list[Held] = []
        self.turns = count()

    def open(self, address: str, phase: Phase = Phase.IDLE, *, used: bool = False) -> Held:
        """Admit a connection."""
        held = Held(self, phase, used=used)
        held.sender = self.senders.admit(held, address)
        return held

    def open_many(self, address: str, *phases: Phase) -> list[Held]:
        """Admit one connection for each phase."""
        return [self.open(address, phase) for phase in phases]

    def begin_body(self, held: Held) -> None:
        """Have the connection's body begin."""
        held.phase, held.deadline = Phase.BODY, float(next(self.turns))
        self.senders.begin_body(held, held.sender)


@pytest.mark.parametrize(
    ("address", "sender"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("not an address", "not an address"),
    ],
)
def test_a_sender_is_an_ipv4_address_or_a_64_bit_network(address, sender):
    assert sender_of(address) == sender


def test_one_address_of_many_spellings_counts_as_one_sender():
    site = Site(each=2)
    first, second = site.open("192.0.2.7"), site.open("::ffff:192.0.2.7")
    site.open("::ffff:c000:207")
    assert site.closed == [first]
    assert second.sender is first.sender


def test_addresses_of_one_ipv6_network_share_their_limit():
    site = Site(each=2)
    first, _, _ = (site.open(f"2001:db8:1:2::{number}") for number in range(3))
    other = site.open("2001:db8:1:3::1")
    assert site.closed == [first]
    assert other.sender is not first.sender


def test_the_oldest_of_a_sender_makes_room_and_no_other_senders():
    site = Site(each=3)
    foreign = site.open("192.0.2.1")
    mine = site.open_many("192.0.2.2", *[Phase.IDLE] * 5)
    assert site.closed == mine[:2]
    assert foreign not in site.closed
    assert len(site.senders) == 4


@pytest.mark.parametrize(
    ("phases", "first"),
    [
        ((Phase.BODY, Phase.HEADER, Phase.IDLE), 2),
        ((Phase.BODY, Phase.HEADER, Phase.HEADER), 1),
        ((Phase.ANSWERING, Phase.BODY, Phase.BODY), 1),
        ((Phase.ANSWERING, Phase.IDLE, Phase.IDLE), 1),
        ((Phase.IDLE, Phase.IDLE, Phase.ANSWERING), 0),
        ((Phase.IDLE, Phase.BODY, Phase.CLOSING), 2),
    ],
)
def test_what_waits_for_its_peer_closes_in_the_order_of_its_progress(phases, first):
    site = Site(each=3)
    held = site.open_many("192.0.2.2", *phases)
    site.open("192.0.2.2")
    assert site.closed == [held[first]]


def test_a_connection_that_was_used_outlives_those_that_never_were():
    site = Site(each=4)
    used = site.open("192.0.2.2", used=True)
    unused = site.open_many("192.0.2.2", Phase.BODY, Phase.IDLE, Phase.HEADER)
    for _ in range(3):
        site.open("192.0.2.2", Phase.ANSWERING)
    assert site.closed == [unused[1], unused[2], unused[0]]
    site.open("192.0.2.2")
    assert site.closed[3:] == [used]


def test_of_used_connections_the_one_that_has_been_idle_longest_closes():
    site = Site(each=3)
    held = [site.open("192.0.2.2", used=True) for _ in range(3)]
    held[0].deadline = float(next(site.turns))
    site.open("192.0.2.2", used=True)
    assert site.closed == [held[1]]


def test_a_body_on_a_used_connection_outlives_those_on_others():
    site = Site(bodies=2)
    used = site.open("192.0.2.2", used=True)
    others = site.open_many("192.0.2.2", *[Phase.IDLE] * 3)
    for each in (used, *others):
        site.begin_body(each)
    assert site.closed == others[:2]


def test_a_request_under_way_is_never_closed_and_the_new_connection_gets_in():
    site = Site(maximum=3, each=3)
    site.open_many("192.0.2.2", *[Phase.ANSWERING] * 4)
    site.open("192.0.2.3")
    assert site.closed == []
    assert len(site.senders) == 5


def test_beyond_the_limit_of_all_the_sender_with_most_connections_loses_one():
    site = Site(maximum=10)
    honest = site.open_many("192.0.2.1", *[Phase.IDLE] * 2)
    greedy = site.open_many("192.0.2.2", *[Phase.BODY] * 8)
    site.open("192.0.2.3")
    assert site.closed == greedy[:1]
    for number in range(4, 9):
        site.open(f"192.0.2.{number}")
    assert site.closed == greedy[:6]
    assert not set(honest) & set(site.closed)


def test_trusted_proxies_are_exempt_from_the_limits_of_one_sender():
    site = Site(maximum=1_000, each=3, bodies=2)
    held = site.open_many(PROXY, *[Phase.IDLE] * 20)
    network = [site.open(f"2001:db8:ffff::{number}") for number in range(20)]
    for each in (*held, *network):
        site.begin_body(each)
    assert site.closed == []


@pytest.mark.parametrize("first", ["proxy", "neighbour"])
def test_neighbours_of_a_proxy_in_its_network_are_not_exempt(first):
    """The limits know an IPv6 sender by its /64, and the exemption by its address."""
    proxy, neighbour = "2001:db8:1::10", "2001:db8:1::20"
    site = Site(each=3, bodies=2, proxy=proxy)
    order = (proxy, neighbour) if first == "proxy" else (neighbour, proxy)
    held = {address: site.open_many(address, *[Phase.IDLE] * 3) for address in order}
    for each in (*held[proxy], *site.open_many(proxy, *[Phase.IDLE] * 3)):
        site.begin_body(each)
    assert site.closed == []
    site.open(neighbour)
    assert site.closed == held[neighbour][:1]


def test_a_full_worker_takes_its_room_from_strangers_before_proxies():
    site = Site(maximum=10, each=100)
    proxied = site.open_many(PROXY, *[Phase.IDLE] * 8)
    strangers = site.open_many("192.0.2.1", *[Phase.IDLE] * 2)
    for _ in range(2):
        site.open(PROXY)
    assert site.closed == strangers
    assert not set(proxied) & set(site.closed)


def test_a_worker_full_of_one_proxys_connections_closes_its_oldest():
    site = Site(maximum=4)
    proxied = site.open_many(PROXY, *[Phase.IDLE] * 4)
    site.open(PROXY)
    site.open("192.0.2.1")
    assert site.closed == proxied[:2]


def test_the_oldest_of_too_many_bodies_closes():
    site = Site(bodies=2)
    idle, first, second, third = site.open_many("192.0.2.2", *[Phase.IDLE] * 4)
    for each in (first, second):
        site.begin_body(each)
    assert site.closed == []
    site.begin_body(third)
    assert site.closed == [first]
    assert idle.phase is Phase.IDLE


def test_a_body_that_begins_on_the_oldest_connection_closes_another():
    site = Site(bodies=2)
    oldest, second, third = site.open_many("192.0.2.2", *[Phase.IDLE] * 3)
    for each in (second, third, oldest):
        site.begin_body(each)
    assert site.closed == [second]
    assert oldest.phase is Phase.BODY


def test_bodies_of_other_senders_do_not_count():
    site = Site(bodies=1)
    for number in range(10):
        site.begin_body(site.open(f"192.0.2.{number}"))
    assert site.closed == []


def test_a_body_that_has_arrived_counts_no_more():
    site = Site(bodies=1)
    first, second = site.open_many("192.0.2.2", Phase.IDLE, Phase.IDLE)
    site.begin_body(first)
    first.phase = Phase.ANSWERING
    site.begin_body(second)
    assert site.closed == []


def test_a_connection_that_is_forgotten_twice_counts_once():
    site = Site(each=2)
    first, second = site.open_many("192.0.2.2", Phase.IDLE, Phase.IDLE)
    for _ in range(3):
        site.senders.dismiss(first, first.sender)
    assert len(site.senders) == 1
    site.open("192.0.2.2")
    assert site.closed == []
    assert second.phase is Phase.IDLE


def test_a_sender_whose_last_connection_makes_room_keeps_its_limit():
    site = Site(each=1)
    held = site.open_many("192.0.2.2", *[Phase.IDLE] * 5)
    assert site.closed == held[:4]
    assert len(site.senders) == 1


def test_a_sender_of_no_connections_is_forgotten():
    site = Site()
    for number in range(100):
        held = site.open(f"2001:db8:{number:x}::1")
        site.senders.dismiss(held, held.sender)
    assert len(site.senders) == 0
    before = site.open("192.0.2.2")
    site.senders.dismiss(before, before.sender)
    assert site.open("192.0.2.2").sender is not before.sender


def test_whatever_comes_and_goes_the_counts_are_right_and_the_limits_hold():
    generator = random.Random("senders")
    site, held = Site(maximum=30, each=8, bodies=3), []
    addresses = ["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.2", "2001:db8::1", "2001:db8::2", PROXY]
    for _ in range(5_000):
        match generator.randrange(4):
            case 0 | 1:
                held.append(site.open(generator.choice(addresses)))
            case 2 if held:
                each = held.pop(generator.randrange(len(held)))
                site.senders.dismiss(each, each.sender)
            case _ if held:
                site.begin_body(generator.choice(held))
        held = [each for each in held if each.phase is not Phase.CLOSING]
        counts = Counter(each.sender.name for each in held)
        bodies = Counter(each.sender.name for each in held if each.phase is Phase.BODY)
        assert len(site.senders) == len(held) <= 30
        assert all(count <= 8 for name, count in counts.items() if name != PROXY)
        assert all(count <= 3 for name, count in bodies.items() if name != PROXY)
