"""Equivalent URIs are one resource server; different ones stay apart (RFC 3986, 6.2)."""

import pytest

from authz_server.clients.identifiers import normalised

EQUIVALENT = {
    "https://mapper.example/": [
        "https://m%61pp%65r.example",
        "https://mapper.example",
        "HTTPS://Mapper.Example",
        "https://mapper.example:443/",
        "https://mapper.example/.",
        "https://mapper.example/a/..",
        "https://mapper.example/a/../",
    ],
    "https://mapper.example/a/~b%2Fc": [
        "https://mapper.example/a/%7Eb%2fc",
        "https://mapper.example/./a/b/../%7eb%2Fc",
    ],
    "http://[::1]:8080/x": ["http://[::1]:8080/./x"],
    "https://[2001:db8::1]/": [
        "https://[2001:DB8:0:0:0:0:0:1]:443",
        "https://[2001:0db8::0:0001]/",
    ],
    "https://[v1.x]/": ["https://[v1.x]:443"],
    "http://localhost/": ["http://LOCALHOST:80"],
    "urn:g2p:Mapper%2Fone": ["URN:G2P:Mapper%2fone"],
}
DIFFERENT = [
    "https://mapper.example/",
    "https://mapper.example/a",
    "https://mapper.example/a/",
    "https://mapper.example/A",
    "https://mapper.example:8443/",
    "https://mapper.example/?a",
    "https://mapper.example/a%2Fb",
    "https://mapper.example/a/b",
    "http://mapper.example/",
    "https://[v1.x]/",
    "https://v1.x/",
    "https://[2001:db8::1]/",
    "https://[2001:db8::1:0]/",
    "urn:g2p:mapper",
    "urn:g2p:Mapper",
]


@pytest.mark.parametrize("spelling", EQUIVALENT)
def test_equivalent_spellings_are_one(spelling: str):
    assert normalised(spelling) == spelling
    assert {normalised(other) for other in EQUIVALENT[spelling]} == {spelling}


def test_different_uris_stay_apart():
    assert len({normalised(each) for each in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize(
    "text",
    [
        "https://mapper.example#",
        "https://mapper.example#f",
        "https://user@mapper.example",
        "https://@mapper.example/",
        " https://mapper.example",
        "https://mapper.example\t",
        "https://map\nper.example",
        "https:mapper.example/",
        "https:/mapper.example/",
        "//mapper.example/",
    ],
)
def test_a_text_that_is_not_such_a_uri_stays_apart(text: str):
    assert normalised(text) == text


@pytest.mark.parametrize("text", ["", "x", "https://[", "https://a:99999999/", "\u00e9", "%"])
def test_other_texts_raise_nothing(text: str):
    assert isinstance(normalised(text), str)
