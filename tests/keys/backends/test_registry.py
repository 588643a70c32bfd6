"""Backends are found among what is installed, by the scheme of their URI."""

import sys
from textwrap import dedent

import pytest

from keys.backends.local.sql import LocalBackend
from keys.backends.registry import BackendContext, open_backend
from keys.errors import KeysError
from keys.memory import MemoryEncryptedKeyStorage
from support.clock import FakeClock


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
