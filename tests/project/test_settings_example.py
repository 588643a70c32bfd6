"""config.example.toml, docs/configuration.md and the structs say the same."""

import re
import typing

import msgspec

from authz_server.settings import (
    IssuerSettings,
    Secret,
    Settings,
    VaultSettings,
    describe_settings,
    load_settings,
)
from authz_server.settings.admin import RoleSettings
from support.settings_example import EXAMPLE, read_document, read_example

REQUIRED = {
    "issuer",
    "clients.secret_pepper",
    "admin.roles.helpdesk.permissions",
    "issuers.cluster.issuer",
    "keys.vaults.main.addresses",
    "keys.vaults.main.login.method",
}
KEY_ENCRYPTION_KEY = "keys.key_encryption_key"


def struct_fields(kind=Settings, prefix=""):
    for field in msgspec.structs.fields(kind):
        key = prefix + field.name
        default = (
            field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        )
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from struct_fields(field.type, f"{key}.")
        elif key == "keys.rings":
            for name, ring in default.items():
                for setting in ring.__struct_fields__:
                    yield f"{key}.{name}.{setting}", getattr(ring, setting)
        elif key == "keys.vaults":
            yield from struct_fields(VaultSettings, f"{key}.main.")
        elif key == "issuers":
            yield from struct_fields(IssuerSettings, f"{key}.cluster.")
        elif key == "admin.roles":
            yield from struct_fields(RoleSettings, f"{key}.helpdesk.")
        elif key != "plugins.settings":
            yield key, default


def test_the_example_names_every_key_with_its_default_and_nothing_else():
    defaults = dict(struct_fields())
    entries = {entry.key: entry for entry in read_example()}

    others = entries.keys() - defaults.keys()
    assert {key.rpartition("plugins.settings.")[0] for key in others} == {""}
    assert "plugins.settings.scope_array.claim" in others
    assert defaults.keys() - entries.keys() == set()
    for key, default in defaults.items():
        entry = entries[key]
        of_vault = key.startswith(("keys.vaults.", "issuers."))
        if key in REQUIRED:
            assert default is msgspec.NODEFAULT, key
        elif default is None:
            assert entry.commented_out is (key != KEY_ENCRYPTION_KEY), key
        else:
            value = entry.value
            expected = list(default) if isinstance(default, tuple) else default
            assert (value, type(value), entry.commented_out) == (
                expected,
                type(expected),
                of_vault,
            ), key


def test_each_key_of_the_example_has_its_sentence():
    for entry in read_example():
        assert entry.sentence.endswith((".", '".')), entry.key
        assert entry.sentence[0].isupper() or entry.sentence[0] == '"', entry.key


def test_the_document_repeats_the_example():
    defaults = dict(struct_fields())
    expected = [
        (entry.key, _default_in_words(entry, defaults), entry.sentence)
        for entry in read_example()
        if entry.key in defaults
    ]
    assert list(read_document()) == expected


def _default_in_words(entry, defaults):
    if entry.key in REQUIRED:
        return "must be set"
    if entry.key == KEY_ENCRYPTION_KEY:
        return "must be set for `sql://` and `file://`"
    return "not set" if defaults[entry.key] is None else f"`{entry.text}`"


def test_a_copy_of_the_example_loads_and_differs_from_the_defaults_in_nothing(tmp_path):
    for name in ("secret-pepper", "key-encryption-key"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text("".join(f"{number:02x}" for number in range(32)))
    copy = tmp_path / "authz-server.toml"
    copy.write_text(EXAMPLE.read_text())

    settings = load_settings(copy, {})

    # Relative to the file, so that the server finds it wherever it is started.
    assert settings.database.url == f"sqlite:///{tmp_path}/authz-server.db"
    assert settings.audit.latest_change_file == f"{tmp_path}/latest-change.json"
    changed = {view.key for view in describe_settings(settings) if not view.is_default}
    files = {"database.url", "audit.latest_change_file"}
    assert changed == {"issuer", "clients.secret_pepper", KEY_ENCRYPTION_KEY, *files}


def test_the_vault_of_the_example_loads_once_its_comments_are_taken_off(tmp_path):
    text = EXAMPLE.read_text()
    start, end = text.index("# [keys.vaults.main]"), text.index("[tokens]")
    # A line of the table, not a sentence.
    table = re.sub(r"(?m)^# (?=\[|\w+ = )", "", text[start:end])
    table = table.replace('role_id = ""', 'role_id = "it"', 1)
    table = table.replace('secret_id_file = ""', 'secret_id_file = "id"', 1)
    (tmp_path / "secret-pepper").touch(0o600)
    (tmp_path / "secret-pepper").write_text("".join(f"{number:02x}" for number in range(32)))
    (tmp_path / "key-encryption-key").touch(0o600)
    (tmp_path / "key-encryption-key").write_text((tmp_path / "secret-pepper").read_text())
    copy = tmp_path / "authz-server.toml"
    copy.write_text(text[:start] + table + text[end:])

    vault = load_settings(copy, {}).keys.vaults["main"]

    assert vault.login.secret_id_file == str(tmp_path / "id")
    assert vault.rotator_login.secret_id_file == str(tmp_path / "rotator-secret-id")
    assert vault.total_timeout_milliseconds == 1500


def fields_of(kind=Settings, prefix=""):
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from fields_of(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field.type


def test_every_secret_in_the_tree_is_typed_as_one():
    types = dict(fields_of())
    endings = ("password", "pepper", "_key", "redis_url", "_secret")
    named = {key for key in types if key.endswith(endings)}
    typed = {
        key for key, kind in types.items() if kind is Secret or Secret in typing.get_args(kind)
    }
    assert named - {"server.tls_private_key", "admin.tls_private_key"} == typed
