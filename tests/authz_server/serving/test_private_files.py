"""TLS files and orders of workers, which go by files that no disk keeps where the system can."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from authz_server.serving import private_files, worker_processes
from authz_server.serving.tls import TlsFiles, tls_context
from authz_server.serving.worker import Order
from authz_server.serving.worker_processes import spawn_worker
from authz_server.settings import ServerSettings, load_settings
from support.openbao_authority import CertificateAuthority
from support.settings_file import write_settings


@pytest.mark.parametrize("missing", ["nothing", "/proc", "memfd_create", "both"])
def test_tls_needs_neither_proc_nor_files_in_memory(tmp_path, monkeypatch, missing):
    certified = CertificateAuthority(tmp_path).certify("localhost")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    if missing in {"/proc", "both"}:
        monkeypatch.setattr(private_files, "_DESCRIPTORS", Path("/nowhere"))
    if missing in {"memfd_create", "both"}:
        monkeypatch.delattr(os, "memfd_create")
    server = ServerSettings(
        tls_certificate=str(certified.certificate_path),
        tls_private_key=str(certified.private_key_path),
    )
    assert tls_context(server) is not None
    assert not list(folder.iterdir())


def test_a_worker_that_does_not_read_its_order_holds_up_nothing(tmp_path, sqlite_url, monkeypatch):
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    monkeypatch.setattr(worker_processes, "_COMMAND", command)
    settings = load_settings(write_settings(tmp_path, sqlite_url, {}))
    with (tmp_path / "descriptor").open("w") as file:
        order = Order(
            settings=settings,
            settings_file="",
            listeners=(),
            report=file.fileno(),
            role="public",
            table=file.fileno(),
            place=0,
            tls=TlsFiles(b"", b"", bytes(200_000)),
        )
        started: list[subprocess.Popen[bytes]] = []
        starting = threading.Thread(target=lambda: started.append(spawn_worker(order)), daemon=True)
        starting.start()
        starting.join(30)
    assert started
    started[0].kill()
    started[0].communicate(timeout=30)
