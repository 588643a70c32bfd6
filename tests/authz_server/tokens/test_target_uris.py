"""Two spellings of one URI are the same endpoint; another URI is not (RFC 9449, 4.3)."""

import pytest

from authz_server.tokens.target_uris import normalise_target

TARGET = "https://auth.example/oauth2/token"


@pytest.mark.parametrize(
    "uri",
    [
        TARGET,
        "HTTPS://AUTH.example/oauth2/token",
        "https://auth.example:443/oauth2/token",
        "https://auth.example:/oauth2/token",
        "https://auth.example/oauth2/token?scope=a",
        "https://auth.example/oauth2/token?",
        "https://auth.example/oauth2/token#part",
        "https://auth.example/oauth2/token?a=b#c",
        "https://auth.example/oauth2/./token",
        "https://auth.example/other/../oauth2/token",
        "https://auth.example/%6fauth2/%74oken",
        "https://auth.example/../oauth2/token",
    ],
)
def test_an_equivalent_uri_has_the_same_normal_form(uri):
    """Case A16."""
    assert normalise_target(uri) == TARGET


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://auth.example",
        "https://auth.example/oauth2/token/",
        "https://auth.example//oauth2/token",
        "https://auth.example/oauth2/Token",
        "https://auth.example/oauth2%2Ftoken",
        "https://auth.example/oauth2/token/..",
        "https://auth.example:444/oauth2/token",
        "https://auth.example:80/oauth2/token",
        "http://auth.example/oauth2/token",
        "http://auth.example:443/oauth2/token",
        "https://user@auth.example/oauth2/token",
        "https://auth.example.evil.example/oauth2/token",
        "https://auth.example\\@evil.example/oauth2/token",
        "https://evil.example/?https://auth.example/oauth2/token",
        "//auth.example/oauth2/token",
        "/oauth2/token",
        "https:/oauth2/token",
        "ftp://auth.example/oauth2/token",
        " https://auth.example/oauth2/token",
        "https://auth.example/oauth2/token ",
        "https://auth.example/oauth2/\ttoken",
        "https://auth.example/oauth2/token\n",
        "https://\N{LATIN SMALL LETTER SHARP S}.example/oauth2/token",
        "https://[auth.example/oauth2/token",
        "https://[::1/oauth2/token",
        f"https://auth.example/oauth2/token?{'a' * 2_048}",
    ],
)
def test_another_uri_has_another_normal_form(uri):
    """Case A16."""
    assert normalise_target(uri) != TARGET


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("https://auth.example", "https://auth.example/"),
        ("https://auth.example/a/b/..", "https://auth.example/a/"),
        ("https://auth.example/a/.", "https://auth.example/a/"),
        ("https://auth.example/%2f%e9%7E", "https://auth.example/%2F%E9~"),
        ("http://[::1]:80/a", "http://[::1]/a"),
    ],
)
def test_the_normal_form_follows_rfc_3986(uri, normal):
    assert normalise_target(uri) == normal
    assert normalise_target(normal) == normal
