"""Records of messages that a front refuses itself."""

import pytest

from support.raw_http import RawConnection


@pytest.mark.parametrize(
    ("peer", "forwarded", "recorded"),
    [
        ("127.0.0.1", b"203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", b"nonsense", "127.0.0.1"),
        ("127.0.0.2", b"203.0.113.9", "127.0.0.2"),
    ],
)
def test_a_refused_message_is_recorded_with_the_address_of_its_client(
    make_site, peer, forwarded, recorded
):
    """Case I100."""
    site = make_site(trusted_proxies=("127.0.0.1",))
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: " + forwarded
    for framing in (b"Content-Length: 999999", b"Transfer-Encoding: gzip, chunked"):
        with RawConnection(site.port, source=peer) as connection:
            connection.send(head + b"\r\n" + framing + b"\r\n\r\n")
            assert connection.receive().status in {400, 413}
    assert [each.source_address for each in site.records] == [recorded] * 2
