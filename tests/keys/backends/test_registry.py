"""Backends are found among what is installed, by the scheme of their URI."""

import sys
from textwrap import dedent

import pytest

from keys.backends.local.sql import LocalBackend
from keys.backends.registry import BackendContext, BackendRegistry
from keys.errors import KeysError
from keys.memory import MemoryEncryptedKeyStorage
from support.clock import FakeClock
from support.opened_backends import open_backend


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a distribution with a backend of its own, as a stranger's would be."""
    folder = tmp_path / "stranger-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        dedent(
            """\
            [authz_server.key_backends]
            stranger = stranger_backend:open_backend
            needy = needy_backend:open_backend
            sql = keys.backends.local.sql:open_backend
            """
        )
    )
    (tmp_path / "stranger_backend.py").write_text(
        "def open_backend(uri, context):\n    return (uri, context)\n"
    )
    (tmp_path / "needy_backend.py").write_text("import library_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("stranger_backend", None)


@pytest.mark.usefixtures("installed")
def test_a_strangers_backend_is_opened_with_uri_and_context():
    context = BackendContext(clock=FakeClock())
    opened = open_backend("stranger://mount/key?x=1", context)
    assert opened == ("stranger://mount/key?x=1", context)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("uri", ["nowhere://x", "", "://", "SQL://", "keys.errors"])
def test_an_unknown_scheme_is_a_clear_error(uri):
    with pytest.raises(KeysError, match=r"no key backend for .* is installed .*stranger"):
        open_backend(uri, BackendContext(clock=FakeClock()))


@pytest.mark.usefixtures("installed")
def test_a_missing_library_is_a_clear_error():
    with pytest.raises(KeysError, match=r"'needy' needs a library: .*library_that_is_missing"):
        open_backend("needy://", BackendContext(clock=FakeClock()))


@pytest.mark.usefixtures("installed")
def test_the_local_backend_is_opened_like_any_other():
    context = BackendContext(
        clock=FakeClock(), encrypted_keys=MemoryEncryptedKeyStorage(), key_encryption_key=bytes(32)
    )
    assert isinstance(open_backend("sql://", context), LocalBackend)


def opener(uri, context):
    return (uri, context)


@pytest.mark.usefixtures("installed")
def test_a_backend_that_a_plugin_offers_is_opened_like_an_installed_one():
    registry = BackendRegistry([("plugin shed", "shed", opener)])
    context = BackendContext(clock=FakeClock())
    assert registry.open("shed://x", context) == ("shed://x", context)
    assert registry.open("stranger://y", context) == ("stranger://y", context)
    with pytest.raises(KeysError, match=r"installed: .*shed.*stranger"):
        registry.open("nowhere://", context)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("offered", "who"),
    [
        ([("plugin one", "shed", opener), ("plugin two", "shed", opener)], "plugin one and plugin"),
        ([("plugin one", "stranger", opener)], "the package stranger and plugin one"),
    ],
)
def test_a_scheme_that_two_offer_is_refused_by_its_name_and_theirs(offered, who):
    with pytest.raises(KeysError, match=f"key backend '(shed|stranger)': provided by both {who}"):
        BackendRegistry(offered)


@pytest.mark.usefixtures("installed")
def test_a_scheme_of_two_packages_is_refused(tmp_path):
    folder = tmp_path / "rival-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[authz_server.key_backends]\nstranger = rival:open_backend\n"
    )
    with pytest.raises(
        KeysError, match=r"'stranger': provided by both the package \w+ and the package \w+"
    ):
        open_backend("stranger://", BackendContext(clock=FakeClock()))
