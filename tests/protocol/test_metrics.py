"""The metrics of a running server: on its own listener, of all its processes, past their ends."""

import os
import signal
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from authz_server.metrics.definitions import FAMILIES
from support.promtool import run_promtool
from support.protocol import ENDPOINTS

SECONDS = 60


def metrics_of(server):
    answer = httpx.get(f"{server.health_url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def await_metrics(server, holds):
    """Return the metrics once `holds` says so of them."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        metrics = metrics_of(server)
        if holds(metrics):
            return metrics
        time.sleep(0.05)
    raise AssertionError(metrics_of(server))


def nodes(metrics):
    return {labels[-1] for name, *labels in metrics if name == "authz_server_key_ring_epoch"}


def folders(server):
    return list(server.log_path.parent.glob("authz-server-metrics-*"))


def test_every_process_counts_and_a_killed_one_takes_nothing_back(start_live_server):
    server = start_live_server(workers=2, keys={"refresh_interval_seconds": 1})
    assert len(folders(server)) == 1
    for _ in range(20):
        # Each connection is one process's own.
        assert httpx.get(f"{server.base_url}/.well-known/jwks.json").status_code == 200
    form = {"grant_type": "client_credentials"}
    refused = httpx.post(f"{server.base_url}{ENDPOINTS['token']}", data=form)
    assert refused.status_code == 401
    before = await_metrics(
        server,
        lambda found: len(nodes(found)) == 2 and any("requests_total" in each[0] for each in found),
    )
    fetched = (
        before["authz_server_jwks_fetch_total", "false"]
        + before["authz_server_jwks_fetch_total", "true"]
    )
    assert fetched == 20
    assert before["authz_server_requests_total", "invalid_client", "token"] == 1
    assert before["authz_server_signing_key_age_seconds", "es256"] > 0
    assert before["authz_server_key_view_success_timestamp", "es256"] > time.time() - 60

    first = server.worker_process_ids()[0]
    os.kill(first, signal.SIGKILL)
    after = await_metrics(server, lambda found: len(nodes(found)) == 3)
    assert after["authz_server_requests_total", "invalid_client", "token"] == 1
    assert (
        after["authz_server_jwks_fetch_total", "false"]
        + after["authz_server_jwks_fetch_total", "true"]
        == 20
    )
    assert first not in server.worker_process_ids()

    assert {family.name for family in FAMILIES if not family.buckets} >= {
        name for name, *_ in after if not name.endswith(("_bucket", "_count", "_sum"))
    }
    server.stop()
    assert folders(server) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_public_listener_has_no_metrics(live_server):
    """Case I107."""
    assert httpx.get(f"{live_server.base_url}/metrics").status_code == 404


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_promtool_accepts_the_page(live_server):
    """The names, the help texts and the buckets are as Prometheus advises."""
    form = {"grant_type": "client_credentials"}
    httpx.post(f"{live_server.base_url}{ENDPOINTS['token']}", data=form)
    await_metrics(live_server, lambda found: any("_bucket" in each[0] for each in found))
    page = httpx.get(f"{live_server.health_url}/metrics").content
    assert run_promtool("check", "metrics", page=page) == ""
