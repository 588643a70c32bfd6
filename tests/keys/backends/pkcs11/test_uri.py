"""The URI of a token: what it may say, and that it never says a PIN."""

from pathlib import Path

import pytest

from keys.backends.pkcs11.uri import parse_uri
from keys.errors import KeysError

REST = "?module-path=/lib/hsm.so&pin-source=file:/run/pin"


def test_everything_that_it_may_say():
    location, label = parse_uri(
        "pkcs11:token=My%20token;serial=12%2F3;manufacturer=M;model=HSM;object=oidc%20es256;"
        "type=private?pin-source=file:///run/a%3Bb&module-path=/lib/hsm.so"
    )
    assert label == "oidc es256"
    assert (location.token, location.serial) == ("My token", "12/3")
    assert (location.manufacturer, location.model) == ("M", "HSM")
    assert location.module == Path("/lib/hsm.so")
    assert location.pin_file == Path("/run/a;b")


def test_the_label_may_be_left_to_the_ring():
    location, label = parse_uri(f"pkcs11:token=t{REST}")
    assert label is None
    assert (location.serial, location.manufacturer, location.model) == (None, None, None)


def test_a_plain_path_is_a_file_too():
    location, _ = parse_uri("pkcs11:token=t?module-path=/lib/hsm.so&pin-source=/run/pin")
    assert location.pin_file == Path("/run/pin")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("pkcs12:token=t" + REST, "begins with"),
        ("pkcs11:" + REST, "needs token="),
        ("pkcs11:token=" + REST, "needs token="),
        ("pkcs11:token=t", "needs module-path="),
        ("pkcs11:token=t?module-path=/lib/hsm.so", "needs pin-source="),
        ("pkcs11:token=t?module-path=hsm.so&pin-source=file:/pin", "absolute path"),
        ("pkcs11:token=t?module-path=/lib/hsm.so&pin-source=file:pin", "absolute path"),
        ("pkcs11:token=t?module-path=/lib/hsm.so&pin-source=pin", "absolute path"),
        ("pkcs11:token=t?module-path=/lib/hsm.so&pin-source=|cat%20pin", "absolute path"),
        ("pkcs11:token=t?module-path=/lib/hsm.so&pin-source=https://x/pin", "is a file"),
        ("pkcs11:token=t;id=%01" + REST, "cannot have 'id'"),
        ("pkcs11:token=t;token=u" + REST, "cannot have 'token'"),
        ("pkcs11:token=t;object" + REST, "cannot have 'object'"),
        ("pkcs11:token=t;type=public" + REST, "private key"),
        ("pkcs11:token=%ff" + REST, "not UTF-8"),
        ("pkcs11:token=t;object=" + REST, "label of up to"),
        ("pkcs11:token=t;object=a~b" + REST, "label of up to"),
        ("pkcs11:token=t;object=" + "x" * 65 + REST, "label of up to"),
        ("pkcs11:token=t" + REST + "&module-name=hsm", "cannot have 'module-name'"),
    ],
)
def test_what_it_may_not_say(uri, sentence):
    with pytest.raises(KeysError, match=sentence):
        parse_uri(uri)


def test_an_editors_mark_is_no_part_of_a_pin(tmp_path):
    """Case R243."""
    pin = tmp_path / "pin"
    pin.write_bytes(b"\xef\xbb\xbf1234\n")
    pin.chmod(0o600)
    location, _ = parse_uri(f"pkcs11:token=t?module-path=/lib/hsm.so&pin-source=file:{pin}")
    assert location.read_pin() == "1234"


@pytest.mark.parametrize("place", [";pin-value=31337", REST + "&pin-value=31337"])
def test_a_pin_in_the_uri_is_refused_and_not_repeated(place):
    """Case G85."""
    with pytest.raises(KeysError, match="name a file") as caught:
        parse_uri("pkcs11:token=t" + place)
    assert "31337" not in str(caught.value)
