"""Credentials as requests spell them: read in one way, or refused, and never anything else."""

from base64 import b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz_server.clients.authentication.method import AuthenticationRequest, Reading
from authz_server.clients.authentication.registry import AuthenticationMethods
from authz_server.clients.authentication.shared_secret import SharedSecret
from authz_server.clients.cache import ClientCache
from authz_server.clients.secrets import SecretScheme
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

SECRETS = SecretScheme(b"p" * 32, argon2_concurrency=1)
METHODS = AuthenticationMethods([("authz-server", SharedSecret(ClientCache(SECRETS), SECRETS))])


def recognise(form, authorization):
    """Return the credentials of a request, or None."""
    headers = {} if authorization is None else {"authorization": authorization}
    found = METHODS.recognise(AuthenticationRequest(form, headers, "203.0.113.9"))
    return None if found is None else found[1]


def readings(form, authorization):
    """Return the readings of a request's credentials."""
    credentials = recognise(form, authorization)
    return () if credentials is None else credentials.readings


def basic(pair):
    data = pair if isinstance(pair, bytes) else pair.encode()
    return f"Basic {b64encode(data).decode()}"


@given(form=forms, authorization=st.one_of(st.none(), hostile))
def test_any_request_is_read_or_refused(form, authorization):
    """Case A5"""
    secrets = sum([authorization is not None, "client_secret" in form, "client_assertion" in form])
    try:
        credentials = recognise(form, authorization)
    except OAuthError as refusal:
        reason = refusal.reason
    else:
        reason = ""
    if reason:
        assert reason == "several_authentication_methods"
        assert secrets > 1 or (authorization is not None and "client_id" in form)
        return
    assert secrets <= 1 or not authorization
    if credentials is None:
        return
    assert credentials.method in {"client_secret_basic", "client_secret_post"}
    for reading in credentials.readings:
        assert reading.client_id
        assert isinstance(reading.proof, bytes)


@pytest.mark.parametrize("encode", [quote_plus, lambda text: quote(text, safe="")])
@given(client_id=ids, secret=secrets)
def test_a_form_encoded_pair_is_offered_as_it_was(encode, client_id, secret):
    """Case A8"""
    header = basic(f"{encode(client_id)}:{encode(secret)}")
    assert readings({}, header)[0] == Reading(client_id, secret.encode())


@given(client_id=ids, secret=secrets)
def test_a_raw_pair_is_offered_as_it_was(client_id, secret):
    """Case A8"""
    assert Reading(client_id, secret.encode()) in readings({}, basic(f"{client_id}:{secret}"))


@example(pair=b"a%:b+")
@example(pair=b"a:%")
@example(pair=b"a:\xff")
@example(pair=b"a:b:c")
@given(pair=st.binary(max_size=40))
def test_only_two_readings_of_a_pair_are_ever_offered(pair):
    """Case A8: no tolerance turns one client's secret into another value."""
    found = readings({}, basic(pair))
    assert len(found) <= 2
    raw_id, _, raw_secret = pair.partition(b":")
    if found:
        try:
            raw_secret.decode()
        except UnicodeDecodeError:
            raw_secret = raw_secret.decode("latin-1").encode()
        assert found[-1] == Reading(raw_id.decode(), raw_secret)
    if len(found) == 2:
        assert b"%" in pair or b"+" in pair
        assert all(reading.proof for reading in found)


@given(client_id=ids, secret=secrets)
def test_fields_of_the_form_are_offered_as_they_are(client_id, secret):
    credentials = recognise({"client_id": client_id, "client_secret": secret}, None)
    assert credentials.method == "client_secret_post"
    assert credentials.readings == (Reading(client_id, secret.encode()),)


def test_the_refusal_of_two_secrets_names_the_client_of_the_header():
    """The audit record has the client id in the request, also if the form has none."""
    with pytest.raises(OAuthError) as refused:
        recognise({"client_secret": "another"}, basic("payer:a-secret"))
    assert refused.value.reason == "several_authentication_methods"
    assert refused.value.client_id == "payer"


@given(client_id=ids, other=ids, secret=secrets)
def test_a_client_id_beside_basic_has_to_be_the_same(client_id, other, secret):
    """Case A5"""
    header = basic(f"{quote_plus(client_id)}:{quote_plus(secret)}")
    if client_id == other:
        assert readings({"client_id": other}, header)[0].client_id == client_id
        return
    with pytest.raises(OAuthError) as refused:
        recognise({"client_id": other}, header)
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
    assert readings({}, header) == ()


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_the_scheme_is_read_in_any_case(scheme):
    header = basic("a:b").replace("Basic", scheme)
    assert readings({}, header) == (Reading("a", b"b"),)


@pytest.mark.parametrize("form", [{}, {"client_id": "a"}, {"client_secret": "b"}])
def test_half_of_a_pair_in_the_form_proves_nothing(form):
    """Case A9"""
    assert recognise(form, None) is None
