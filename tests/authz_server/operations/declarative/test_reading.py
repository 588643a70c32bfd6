import time

import pytest

from authz_server.errors import InvalidChangeError
from authz_server.operations.declarative.document import read_declaration

CLIENT = '[clients.ministry]\nname = "Ministry"\nallowed_scopes = []\n'
JSON_CLIENT = '"ministry": {"name": "M", "allowed_scopes": []}'


def _refusal(tmp_path, text, name="a.toml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.process_time()
    with pytest.raises(InvalidChangeError) as refusal:
        read_declaration([path])
    assert time.process_time() - began < 5
    message = str(refusal.value)
    assert message.startswith(str(path))
    assert len(message) < 1_000
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", ": the file: Object contains unknown field `x`"),
        (f"{CLIENT}colour = 1\n", ':1: clients."ministry": Object contains unknown field `colour`'),
        (
            f"\n{CLIENT}token_lifetime_seconds = '5'\n",
            ':2: clients."ministry".token_lifetime_seconds: Expected `int | null`, got `str`',
        ),
        ('[clients.ministry]\nname = "M"\n', ':1: clients."ministry": Object missing required'),
        (CLIENT.replace("[]", "[1]"), ':1: clients."ministry".allowed_scopes[0]: Expected `str`'),
        ("clients = 5\n", ": clients: Expected `object`, got `int`"),
        ("clients.ministry = 5\n", ': clients."ministry": Expected `object`, got `int`'),
        ("format = 2\n", ": format: Invalid enum value 2"),
        ('catalogues = ["x"]\n', ": catalogues[0]: Invalid enum value 'x'"),
        (f"{CLIENT}expires_at = 2030-01-01\n", ": clients.ministry.expires_at: use a time"),
        (f"{CLIENT}expires_at = 2030-01-01T00:00:00\n", "expires_at: use a time with its zone"),
        (f"{CLIENT}expires_at = 0001-01-01T00:00:00+23:00\n", "expires_at: use a time with its"),
        (f"{CLIENT}properties.jwks.x = 2030-01-01T00:00:00Z\n", "write the time as a string"),
        (f"{CLIENT}properties.jwks.x = nan\n", ".properties.jwks.x: use a finite number"),
        (f'{CLIENT}organisation = "\\u0000"\n', "organisation: NUL and surrogates"),
        ('[clients."a\\u0000b"]\nname = "M"\n', "clients.a\\x00b: NUL and surrogates"),
        (
            f"{CLIENT}{CLIENT}",
            ": it is not TOML: Cannot declare [clients.ministry] twice (at line 4",
        ),
        ("clients: {}\n", ": it is not TOML: "),
        (b"\xff\n", ":1: it is not UTF-8 text"),
        ("[scopes.own]\nlifetime_cap_seconds = 99999999999\n", "lifetime_cap_seconds: Expected"),
    ],
)
def test_a_malformed_toml_file_is_refused_with_its_place(tmp_path, text, message):
    """The file, the line or the path, and the problem."""
    assert message in _refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", ": the file: Expected `object`, got `array`"),
        ('{\n"clients": {', ":2: it is not JSON: "),
        (f'{{"clients": {{{JSON_CLIENT}, {JSON_CLIENT}}}}}', "the member 'ministry' occurs twice"),
        ('{"clients": {"a": NaN}}', ": it is not JSON: NaN"),
        ('{"clients": {"abc": {"name": "\\ud800"}}}', "NUL and surrogates"),
        (f'{{"clients": {{{JSON_CLIENT[:-1]}, "expires_at": "soon"}}}}}}', "Invalid RFC3339"),
    ],
)
def test_a_malformed_json_file_is_refused_with_its_place(tmp_path, text, message):
    """The same rules hold for JSON."""
    assert message in _refusal(tmp_path, text, "a.json")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("x = " + "[" * 2_000_000, "a.toml"),
        ("x = " + "{a = " * 400_000, "a.toml"),
        ("a" + ".a" * 1_000_000 + " = 1", "a.toml"),
        ("a" + ' . "a"' * 300_000 + " = 1", "a.toml"),
        ("[" + "a." * 1_000_000 + "a]", "a.toml"),
        ("x = {a" + ".a" * 1_000_000 + " = 1}", "a.toml"),
        ("a" * 2_000_000, "a.toml"),
        ('"' * 2_000_000, "a.toml"),
        ("x = " + "9" * 2_000_000, "a.toml"),
        ("[" * 2_000_000, "a.json"),
        ('{"a":' * 400_000, "a.json"),
        ("9" * 2_000_000, "a.json"),
        ("{" + '"a":1,' * 300_000 + '"b":1}', "a.json"),
        ('{"clients": {"abc": ' + "[" * 100 + "]" * 100 + "}}", "a.json"),
    ],
)
def test_a_hostile_file_is_refused_in_bounded_time(tmp_path, text, name):
    """Two megabytes of nesting, long keys, digits or quotes cost at most seconds."""
    _refusal(tmp_path, text, name)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path):
    """The limit is 32 MiB."""
    assert _refusal(tmp_path, b"#" * (32 * 1024 * 1024 + 1)) == ": it has more than 32 MiB"


def test_an_entry_stands_in_one_file_alone(tmp_path):
    """The refusal names both files."""
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(CLIENT)
    with pytest.raises(InvalidChangeError, match=r"b\.toml:1: .*is in .*a\.toml too"):
        read_declaration([tmp_path / "a.toml", tmp_path / "b.toml"])


def test_several_files_are_one_declaration(tmp_path):
    """TOML and JSON may be mixed; a byte order mark is skipped."""
    (tmp_path / "a.toml").write_text(CLIENT, encoding="utf-8-sig")
    (tmp_path / "b.json").write_text(f'{{"clients": {{{JSON_CLIENT.replace("try", "x")}}}}}')
    declaration = read_declaration([tmp_path / "a.toml", tmp_path / "b.json"])
    assert declaration.clients.keys() == {"ministry", "minisx"}
