"""Credentials as requests spell them: read in one way, or refused, and never anything else."""

from base64 import b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_server.clients.authentication.credentials import Offer, read_credentials
from authz_server.errors import OAuthError

ids = st.text("abcXYZ019_-", min_size=1, max_size=20)
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
hostile = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60).map(lambda data: f"Basic {b64encode(data).decode()}"),
    st.sampled_from(["Basic", "Basic ", "basic", "Bearer x", "Basic =", "Basic é", "Basic Og=="]),
)
fields = st.sampled_from(["client_id", "client_secret", "client_assertion", "scope"])
forms = st.dictionaries(fields, st.text(min_size=1, max_size=20), max_size=4)


def basic(pair):
    data = pair if isinstance(pair, bytes) else pair.encode()
    return f"Basic {b64encode(data).decode()}"


@given(form=forms, authorization=st.one_of(st.none(), hostile))
def test_any_request_is_read_or_refused(form, authorization):
    """Case A5"""
    secrets = sum([authorization is not None, "client_secret" in form, "client_assertion" in form])
    try:
        credentials = read_credentials(form, authorization)
    except OAuthError as refusal:
        reason = refusal.reason
    else:
        reason = ""
    if reason:
        assert reason == "several_authentication_methods"
        assert secrets > 1 or (authorization is not None and "client_id" in form)
        return
    assert secrets <= 1
    assert credentials.method in {"", "client_secret_basic", "client_secret_post"}
    for offer in credentials.offers:
        assert offer.client_id
        assert isinstance(offer.secret, bytes)


@pytest.mark.parametrize("encode", [quote_plus, lambda text: quote(text, safe="")])
@given(client_id=ids, secret=secrets)
def test_a_form_encoded_pair_is_offered_as_it_was(encode, client_id, secret):
    """Case A8"""
    header = basic(f"{encode(client_id)}:{encode(secret)}")
    offers = read_credentials({}, header).offers
    assert offers[0] == Offer(client_id, secret.encode())


@given(client_id=ids, secret=secrets)
def test_a_raw_pair_is_offered_as_it_was(client_id, secret):
    """Case A8"""
    offers = read_credentials({}, basic(f"{client_id}:{secret}")).offers
    assert Offer(client_id, secret.encode()) in offers


@example(pair=b"a%:b+")
@example(pair=b"a:%")
@given(pair=st.binary(max_size=40))
def test_only_two_readings_of_a_pair_are_ever_offered(pair):
    """Case A8: no tolerance turns one client's secret into another value."""
    offers = read_credentials({}, basic(pair)).offers
    assert len(offers) <= 2
    raw_id, _, raw_secret = pair.partition(b":")
    if offers:
        assert offers[-1] == Offer(raw_id.decode(), raw_secret)
    if len(offers) == 2:
        assert b"%" in pair or b"+" in pair
        assert all(offer.secret for offer in offers)


@given(client_id=ids, secret=secrets)
def test_fields_of_the_form_are_offered_as_they_are(client_id, secret):
    credentials = read_credentials({"client_id": client_id, "client_secret": secret}, None)
    assert credentials.method == "client_secret_post"
    assert credentials.offers == (Offer(client_id, secret.encode()),)


@given(client_id=ids, other=ids, secret=secrets)
def test_a_client_id_beside_basic_has_to_be_the_same(client_id, other, secret):
    """Case A5"""
    header = basic(f"{quote_plus(client_id)}:{quote_plus(secret)}")
    if client_id == other:
        assert read_credentials({"client_id": other}, header).client_id == client_id
        return
    with pytest.raises(OAuthError) as refused:
        read_credentials({"client_id": other}, header)
    assert refused.value.reason == "several_authentication_methods"


@pytest.mark.parametrize(
    "header",
    [
        *("", "Basic", "Basic ", "Basic !", "Basic YQ", "Bearer YTpi", basic("a"), basic("a:")),
        *(basic(":b"), basic(":"), basic(b"\xff:b"), basic("a:" + "b" * 9_000)),
    ],
)
def test_a_header_without_a_pair_offers_nothing(header):
    """Case A9"""
    assert read_credentials({}, header).offers == ()


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_the_scheme_is_read_in_any_case(scheme):
    header = basic("a:b").replace("Basic", scheme)
    assert read_credentials({}, header).offers == (Offer("a", b"b"),)


@pytest.mark.parametrize(
    ("form", "claimed"),
    [({}, ""), ({"client_id": "a"}, "a"), ({"client_secret": "b"}, "")],
)
def test_half_of_a_pair_in_the_form_proves_nothing(form, claimed):
    """Case A9"""
    credentials = read_credentials(form, None)
    assert credentials.method == ""
    assert credentials.client_id == claimed
    assert all(not offer.secret for offer in credentials.offers)
