import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_server.errors import InvalidChangeError
from authz_server.scopes.names import require_scope_name

# RFC 6749, 3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_RFC_CHARACTERS = {chr(code) for code in range(0x21, 0x7F)} - {'"', "\\"}


@pytest.mark.parametrize(
    "name", ["mapper/link", "mapper.on-link", "openid", "a", "urn:x:y", "A/b/C"]
)
def test_names_in_our_form_pass(name):
    assert require_scope_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "*", "registry.*", "mapper/*", "mapper/", "/mapper", "mapper//link", "../mapper"),
        *(
            "mapper/../link",
            "a..b",
            "mapper link",
            "mapper\tlink",
            "mapper\n",
            'mapper"',
            "m\\apper",
        ),
        *("mäpper", "mapper/\u2028", "\0", "a" * 201, "-link", ".link"),
    ],
)
def test_other_forms_are_refused(name):
    """Case B24."""
    with pytest.raises(InvalidChangeError, match=r"^scope:"):
        require_scope_name(name)


@given(st.text(max_size=30))
def test_whatever_passes_stays_inside_the_characters_of_the_rfc(name):
    """Case B24."""
    try:
        accepted = require_scope_name(name)
    except InvalidChangeError:
        return
    assert accepted == name
    assert name
    assert set(name) <= _RFC_CHARACTERS - {"*"}
