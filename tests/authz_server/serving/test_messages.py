"""The header of one message: fields, target and host, read strictly."""

from itertools import product

import pytest
from httptools import HttpRequestParser

from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.serving.messages import Message, is_one_request, read_fields, read_target

SINGLE = (
    "Authorization",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Host",
    "message_id",
    "timestamp",
    "Transfer-Encoding",
)


def fields(*pairs):
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def target_of(target: str, host: str | None = "authz.example", *, old: bool = False):
    """Return path, query and the host that counts."""
    message = Message()
    message.target, message.old = target.encode("latin-1"), old
    headers = {} if host is None else {"host": host}
    path, query = read_target(message, headers)
    return path, query, headers.get("host")


def refusal(act, *arguments, **named) -> str:
    with pytest.raises(OAuthError) as caught:
        act(*arguments, **named)
    return caught.value.reason


def test_names_are_read_in_lower_case_and_values_as_they_are():
    read = read_fields(fields(("CONTENT-type", "Text/PLAIN"), ("X-Ünknown", "é"), ("x-a", "")))
    assert read == {"content-type": "Text/PLAIN", "x-ünknown": "é", "x-a": ""}


def test_blanks_after_a_value_are_not_part_of_it():
    """RFC 9112, 5.1."""
    read = read_fields(
        fields(("Host", "a.example \t"), ("X-A", "b c\t"), ("X-B", " "), ("x-b", "d "))
    )
    assert read == {"host": "a.example", "x-a": "b c", "x-b": ", d"}


@pytest.mark.parametrize("name", ["Accept", "X-Forwarded-For", "x-forwarded-for", "TE", "X-A"])
def test_fields_that_repeat_form_one_list_in_order(name):
    pairs = fields((name, "a"), ("Between", "x"), (name.upper(), "b, c"), (name.lower(), ""))
    assert read_fields(pairs) == {name.lower(): "a, b, c, ", "between": "x"}


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("second", ["1", "2"])
def test_a_field_of_which_there_is_one_may_not_repeat(name, second):
    """Case I100."""
    for first, other in product((name, name.lower(), name.upper()), repeat=2):
        pairs = fields((first, "1"), ("X-A", "x"), (other, second))
        assert refusal(read_fields, pairs) == "message_malformed"


@pytest.mark.parametrize("name", ["message_id", "message-id", "Message-Id", "MESSAGE_ID"])
def test_the_one_name_with_an_underscore_may_come_with_a_hyphen(name):
    assert read_fields(fields((name, "7"))) == {"message_id": "7"}
    pairs = fields((name, "7"), ("message_id", "8"))
    assert refusal(read_fields, pairs) == "message_malformed"


@pytest.mark.parametrize("name", ["X_Forwarded_For", "Content_Length", "Transfer_Encoding"])
def test_a_name_with_an_underscore_stands_for_no_other(name):
    """Case I100."""
    twin = name.replace("_", "-")
    assert read_fields(fields((twin, "1"), (name, "2"))) == {
        twin.lower(): "1",
        name.lower(): "2",
    }


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/oauth2/token", "/oauth2/token", ""),
        ("/oauth2/token?", "/oauth2/token", ""),
        ("/a?b=c?d&e=/f", "/a", "b=c?d&e=/f"),
        ("/oauth2%2ftoken", "/oauth2%2ftoken", ""),
        ("//oauth2/token", "//oauth2/token", ""),
        ("/a/../b/./c;d", "/a/../b/./c;d", ""),
        ("/é", "/é", ""),
        ("/", "/", ""),
    ],
)
def test_path_and_query_stay_as_they_were_sent(target, path, query):
    assert target_of(target) == (path, query, "authz.example")


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("http://other.example/a?b", "/a", "b", "other.example"),
        ("https://other.example:8443/a", "/a", "", "other.example:8443"),
        ("HTTP://OTHER.example/a", "/a", "", "OTHER.example"),
        ("http://other.example", "/", "", "other.example"),
        ("http://other.example?b", "/", "b", "other.example"),
        ("http://[2001:db8::1]:80/a", "/a", "", "[2001:db8::1]:80"),
        ("http://other.example//a", "//a", "", "other.example"),
    ],
)
def test_the_host_of_an_absolute_target_counts(target, path, query, host):
    """Case I103."""
    assert target_of(target) == (path, query, host)


@pytest.mark.parametrize(
    "target",
    [
        *("", "oauth2/token", "authz.example:443", "?a", "ftp://authz.example/a", "http:/a"),
        *("http:///a", "http://", "/a#b", "http://authz.example/a#b", "\\a", "http://?a"),
    ],
)
def test_other_targets_are_malformed(target):
    """Case I103."""
    assert refusal(target_of, target) == "message_malformed"


def test_the_target_of_the_whole_server_is_nowhere():
    assert refusal(target_of, "*") == "not_found"


@pytest.mark.parametrize("target", ["http://a@other.example/", "http://a b/", "http://é/"])
def test_the_host_of_an_absolute_target_is_checked(target):
    """Case I103."""
    assert refusal(target_of, target) == "host_malformed"


@pytest.mark.parametrize(
    "host",
    [
        *("authz.example", "authz.example:8443", "AUTHZ.Example", "127.0.0.1", "127.0.0.1:80"),
        *("[::1]", "[2001:db8::1]:443", "a_b.example", "xn--bcher-kva.example", "localhost."),
    ],
)
def test_a_host_is_a_name_or_an_address_with_perhaps_a_port(host):
    assert target_of("/a", host) == ("/a", "", host)


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "a b", "a/b", "a@b", "a?b", "a#b", "a,b", "a, b", "a:b", "a:", "a:123456"),
        *("[::1", "::1", "[::1]x", "[a.example]", "a:80:80", "é.example", "a\x00b", "a%41"),
    ],
)
def test_a_host_that_cannot_be_one_is_refused(host):
    """Case I103."""
    assert refusal(target_of, "/a", host) == "host_malformed"
    assert refusal(target_of, "/a", host, old=True) == "host_malformed"
    assert refusal(target_of, "http://authz.example/a", host) == "host_malformed"


def test_only_the_older_protocol_may_do_without_a_host():
    """Case I103."""
    assert refusal(target_of, "/a", None) == "host_malformed"
    assert target_of("/a", None, old=True) == ("/a", "", None)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_message_without_its_wish_for_another_protocol_is_otherwise_the_same(version):
    message = Message()
    message.target, message.old = b"/oauth2/token?a", version == "1.0"
    message.request = Request("POST", "/oauth2/token")
    message.fields = fields(
        ("Host", "authz.example"), ("UPGRADE", "h2c"), ("X-A", "é"), ("upgrade", "websocket")
    )
    assert message.without_upgrade().decode("latin-1") == (
        f"POST /oauth2/token?a HTTP/{version}\r\nHost: authz.example\r\nX-A: é\r\n\r\n"
    )


def test_what_a_parser_reads_of_a_rewritten_message_wishes_nothing():
    message = Message()
    message.target = b"/"
    message.request = Request("GET", "/")
    message.fields = fields(("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"))
    parser = HttpRequestParser(Message())
    parser.feed_data(message.without_upgrade())
    assert not parser.should_upgrade()
    assert parser.should_keep_alive()


PLAIN = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN.replace(b"Content-Length: ", b"content-LENGTH:\t"),
        PLAIN.replace(b"2\r\n", b"002 \r\n"),
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
        PLAIN.replace(b"2", b"4", 1) + b"\n\n",
    ],
)
def test_a_plain_request_is_known_without_a_parser(data):
    """Case J119."""
    assert is_one_request(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b"c",
        PLAIN * 2,
        PLAIN[:30],
        b"\n" + PLAIN,
        PLAIN.replace(b"2", b"+2"),
        PLAIN.replace(b"2", b"2, 2"),
        PLAIN.replace(b"2", b"0x2"),
        PLAIN.replace(b"2", b"9" * 30),
        PLAIN.replace(b"2", b"0000000002"),
        PLAIN.replace(b"2", b"0000000023"),
        PLAIN.replace(b"2", b""),
        PLAIN.replace(b"Content-Length", b" Content-Length"),
        PLAIN.replace(b"Content-Length", b"X-Content-Length"),
        PLAIN.replace(b"Content-Length", b"Content-Length "),
        PLAIN.replace(b"Host: a", b"Content-Length: 2"),
        PLAIN.replace(b"Host: a", b"Content-Length: 3"),
        PLAIN.replace(b"Host: a", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"Host: a", b"TRANSFER-encoding : x"),
        PLAIN.replace(b"Host: a", b"Upgrade: h2c"),
        PLAIN.replace(b"Host: a", b"Expect: 100-continue"),
        PLAIN.replace(b"Host: a", b"Connection: Close"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"Host: a\r\n", b"Host: a\n"),
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nab",
        b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nHEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n\r\n\r\n",
    ],
)
def test_where_only_a_parser_can_tell_nothing_is_assumed(data):
    """Case J119."""
    assert not is_one_request(data)
