"""Texts that clients and operators enter, and those in addresses, are text on every page."""

from urllib.parse import quote

import pytest

from authz_server.admin.console.rendering import own, visible

_ODD = "<script>alert(1)</script>"


def test_markup_is_escaped_wherever_it_comes_from(console, hostile):
    """Stored in a field, or reflected from an address or a form."""
    reflected = [
        f"/clients?q={quote(_ODD)}&scope=mapper/link",
        f"/clients?unused_since={quote(_ODD)}",
        f"/clients/client?id={quote(_ODD)}",
        f"/apis?done={quote(_ODD)}",
        f"/audit?actor={quote(_ODD)}&who={quote(_ODD)}",
        f"/act/client-create?new_id={quote(_ODD)}&name={quote(_ODD)}&allowed_scopes={quote(_ODD)}",
        f"/act/{quote('<b>')}?id=1",
        f"/?lang={quote(_ODD)}",
    ]
    for path in (*hostile.pages, *reflected):
        text = console.get(path).text
        assert _ODD not in text, path
        assert "<b>" not in text, path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("برنامج الدعم", "برنامج الدعم"),
        ("a\u202eb", "a[U+202E]b"),
        ("a\u2067b\u200fc", "a[U+2067]b[U+200F]c"),
        ("\ufeffa\x00", "[U+FEFF]a[U+0000]"),
    ],
)
def test_characters_that_trick_the_eye_are_shown_by_their_code(text, shown):
    """A name cannot turn the text around it, or hide a part of itself."""
    assert visible(text) == shown
    assert own(text) == f"<bdi>{shown}</bdi>"
