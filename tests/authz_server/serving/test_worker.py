"""A worker within the limits of the system."""

import resource

import pytest

from authz_server.serving.worker import allow_connections


@pytest.mark.parametrize(
    ("hard", "allowed"),
    [(64, 1), (256, 1), (257, 1), (300, 44), (4_352, 4_096), (resource.RLIM_INFINITY, 4_096)],
)
def test_few_open_files_allow_few_connections(monkeypatch, caplog, hard, allowed):
    """The number in the warning is the number in force. Case I101."""
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (32, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert allow_connections(4_096) == allowed
    assert limits == [(hard if allowed < 4_096 else 4_352, hard)]
    warned = [f"at most {allowed} connections, not 4096"] if allowed < 4_096 else []
    assert [
        each in record.getMessage() for each, record in zip(warned, caplog.records, strict=True)
    ] == [True] * len(warned)
