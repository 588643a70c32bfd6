"""The form reader against a model of what a form is (RFC 6749, appendix B; the URL standard)."""

import re
from urllib.parse import parse_qsl, quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_server.endpoints.forms import FORM_TYPE, FormReader
from authz_server.endpoints.request import Request
from authz_server.errors import OAuthError
from authz_server.settings import ServerSettings

LIMITS = ServerSettings(maximum_body_bytes=2_048, maximum_value_bytes=256, maximum_parameters=8)
READER = FormReader(LIMITS)
REFUSALS = {
    "parameter_malformed",
    "parameter_repeated",
    "parameter_too_long",
    "parameters_too_many",
    "scope_not_granted",
}

control = re.compile(r"[\x00-\x1f\x7f]")
piece = st.sampled_from(
    [*"a=&%+;~", "%2", "%41", "%00", "%c3%a9", "%ff", "%zz", "scope", "resource", "&a=", "==", "é"]
)
bodies = st.one_of(
    st.binary(max_size=80), st.lists(piece, max_size=30).map("".join).map(str.encode)
)
text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
pairs = st.lists(st.tuples(text, text), max_size=8, unique_by=lambda pair: pair[0])


def request_of(body, query="", **headers):
    sent = {"content-type": FORM_TYPE}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/oauth2/token", query, sent, body)


def parse_or_refuse(body):
    """Return the form, or the reason for which it is refused."""
    try:
        return READER.parse(body)
    except OAuthError as refusal:
        return refusal.reason


def modelled(body):
    """Return the parameters in the body by the standard library, or None where a rule is broken."""
    if not body.isascii() or body.count(b"&") >= LIMITS.maximum_parameters:
        return None
    spelled = body.decode()
    if re.search(r"%(?![0-9A-Fa-f]{2})", spelled):
        return None
    try:
        found = parse_qsl(spelled, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        return None
    longest = max((len(each.encode()) for pair in found for each in pair), default=0)
    if longest > LIMITS.maximum_value_bytes or any(control.search("".join(pair)) for pair in found):
        return None
    names = [name for name, _ in found if name != "resource"]
    if len(set(names)) != len(names):
        return None
    return found


@example(b"=x")
@example(b"&&a=1&")
@example(b"a&a=1")
@example(b"%72esource=1&resource=2")
@example(b"a=%C2%85")
@example(b"a=%ed%a0%80")
@example(b"a=" + b"%61" * 257)
@example(b"a=" + b"%c3%a9" * 129)
@example(b"%61" * 256 + b"=" + b"%61" * 256)
@given(bodies)
def test_reader_agrees_with_the_model(body):
    """Case B18, B19, I102"""
    form, expected = parse_or_refuse(body), modelled(body)
    assert isinstance(form, str) == (expected is None)
    if expected is None:
        assert form in REFUSALS
    else:
        values = {name: value for name, value in expected if value and name != "resource"}
        assert form.values == values
        named = [value for name, value in expected if value and name == "resource"]
        assert list(form.resources) == named


@pytest.mark.parametrize("spell", [quote_plus, lambda text: quote(text, safe="")])
@given(pairs=pairs)
def test_every_valid_form_comes_back_as_it_was(spell, pairs):
    body = "&".join(f"{spell(name)}={spell(value)}" for name, value in pairs).encode()
    form = READER.parse(body)
    assert form.values == {name: value for name, value in pairs if name != "resource"}


@given(st.lists(text, max_size=8))
def test_resources_keep_their_order_and_their_number(resources):
    body = "&".join(f"resource={quote_plus(each)}" for each in resources).encode()
    assert READER.parse(body).resources == tuple(resources)


@given(text, text, text)
def test_a_repeated_parameter_is_refused_wherever_it_stands(name, first, second):
    """Case B18"""
    body = f"{quote_plus(name)}={quote_plus(first)}&x-y=1&{quote_plus(name)}={quote_plus(second)}"
    if name == "resource":
        assert READER.parse(body.encode()).resources == (first, second)
        return
    with pytest.raises(OAuthError) as refused:
        READER.parse(body.encode())
    assert refused.value.reason == "parameter_repeated"


@pytest.mark.parametrize("name", ["grant_type", "scope", "client_id", "client_secret", "token"])
def test_a_repeated_empty_parameter_is_refused_too(name):
    """Case B18"""
    with pytest.raises(OAuthError) as refused:
        READER.parse(f"{name}=&{name}=x".encode())
    assert refused.value.reason == "parameter_repeated"


@given(
    content_type=st.one_of(st.text(max_size=60), st.sampled_from(["application/json", ""])),
    query=st.text(max_size=5),
    encoding=st.sampled_from(["identity", "gzip", "", "Identity"]),
    body=bodies,
)
def test_another_type_is_refused_whatever_else_the_request_is(content_type, query, encoding, body):
    """Case B19"""
    request = request_of(body, query, content_type=content_type, content_encoding=encoding)
    with pytest.raises(OAuthError) as refused:
        READER.read(request)
    assert refused.value.status_code == (400 if query else 415)


@pytest.mark.parametrize("encoding", ["gzip", "", "x", "identity, identity"])
def test_a_coded_body_is_refused(encoding):
    with pytest.raises(OAuthError) as refused:
        READER.read(request_of(b"a=1", content_encoding=encoding))
    assert refused.value.reason == "content_type_unsupported"


def test_a_body_that_is_called_plain_is_read():
    assert READER.read(request_of(b"a=1", content_encoding="Identity")).values == {"a": "1"}


@pytest.mark.parametrize(
    "content_type",
    [
        FORM_TYPE,
        FORM_TYPE.upper(),
        f"{FORM_TYPE};charset=utf-8",
        f"{FORM_TYPE}; charset=UTF-8",
        f'{FORM_TYPE} ; charset="utf-8"',
        f"{FORM_TYPE}; charset=utf8",
        f"{FORM_TYPE}; charset=ISO-8859-1",
        f"{FORM_TYPE};charset=us-ascii",
        f"{FORM_TYPE}; charset=utf-8; x=y",
        f"{FORM_TYPE}; boundary=x",
        f"{FORM_TYPE}; charset=utf-8;",
        f"{FORM_TYPE};",
        f"{FORM_TYPE};;",
    ],
)
def test_spellings_of_the_form_type_are_read(content_type):
    request = request_of(b"a=%C3%A9", content_type=content_type)
    assert READER.read(request).values == {"a": "\N{LATIN SMALL LETTER E WITH ACUTE}"}


@pytest.mark.parametrize(
    "content_type",
    [
        f"{FORM_TYPE}; charset=utf-16",
        f"{FORM_TYPE}; charset=",
        f"{FORM_TYPE}; charset=utf-8; charset=iso-8859-1",
        f"{FORM_TYPE}; charset=utf-8; charset=utf-8",
        f"x{FORM_TYPE}",
        f"{FORM_TYPE}, text/plain",
        "multipart/form-data; boundary=x",
        "application/json",
        "",
    ],
)
def test_other_types_are_refused(content_type):
    """Case B19"""
    with pytest.raises(OAuthError) as refused:
        READER.read(request_of(b"a=1", content_type=content_type))
    assert refused.value.reason == "content_type_unsupported"


@pytest.mark.parametrize("name", [b"token", b"%74oken", b"t%6Fken"])
def test_a_presented_token_is_never_malformed(name):
    """However its name is spelled: what is no token is inactive."""
    for value in (b"%09", b"%ff", b"%zz", b"\xff", b"a%00b", b"a" * 257):
        form = READER.read(request_of(name + b"=" + value))
        assert list(form.values) == ["token"]
