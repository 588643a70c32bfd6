import os
import shutil
import tempfile
from types import SimpleNamespace

import click
import pytest

from authz_server.cli import serve
from authz_server.metrics.files import METRICS_FOLDER_VARIABLE
from authz_server.serving.metrics_folder import metrics_folder
from authz_server.settings import SettingsError


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("before", [None, "/elsewhere"])
def test_the_folder_is_private_named_to_processes_and_gone_at_the_end(
    tmp_path, monkeypatch, before
):
    monkeypatch.delenv(METRICS_FOLDER_VARIABLE, raising=False)
    if before:
        monkeypatch.setenv(METRICS_FOLDER_VARIABLE, before)
    with metrics_folder() as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        assert os.environ[METRICS_FOLDER_VARIABLE] == str(folder)
        (folder / "counter_1.db").touch()
    assert not folder.exists()
    assert os.environ.get(METRICS_FOLDER_VARIABLE) == before


def test_a_failing_server_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), metrics_folder():
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_without_any_place_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(click.ClickException, match="TMPDIR"), metrics_folder():
        pass


def test_a_folder_that_is_gone_at_the_end_is_no_failure(monkeypatch):
    monkeypatch.delenv(METRICS_FOLDER_VARIABLE, raising=False)
    with metrics_folder() as folder:
        shutil.rmtree(folder)
    assert METRICS_FOLDER_VARIABLE not in os.environ


def test_it_exists_before_plugins_are_imported(monkeypatch):
    """The library of metrics decides at its import whether it uses one."""
    found = []

    def require_usable(_settings):
        found.append(os.environ.get(METRICS_FOLDER_VARIABLE))
        raise SettingsError("of no use", key="issuer")

    monkeypatch.delenv(METRICS_FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(serve, "require_usable", require_usable)
    monkeypatch.setattr(serve, "configure_logging", lambda _: None)
    invocation = SimpleNamespace(settings=lambda: SimpleNamespace(logging=None))
    with pytest.raises(SettingsError):
        serve.serve.callback.__wrapped__(invocation)
    assert found != [None]
