"""Readiness is what each worker can do now: a worker looks for itself, and the reason is named."""

import os
import signal
import time
from collections.abc import Callable

import httpx
import psycopg
import pytest

from support.live_server import LiveServer


def ready(server: LiveServer) -> tuple[int, dict[str, str]]:
    """Return status and reasons."""
    answer = httpx.get(f"{server.health_url}/health/ready", timeout=10)
    return answer.status_code, answer.json().get("reasons", {})


def degradations(server: LiveServer) -> str:
    """Return the failures that leave the server ready, in one text."""
    answer = httpx.get(f"{server.health_url}/health/ready", timeout=10)
    return "\n".join(answer.json().get("degraded", ()))


def metric_of_workers(server: LiveServer) -> str:
    """Return the value of the metric of readiness."""
    page = httpx.get(f"{server.health_url}/metrics", timeout=10).text
    return page.partition('authz_server_ready{check="workers"} ')[2].partition("\n")[0]


def await_readiness(server: LiveServer, holds: Callable[[int, dict[str, str]], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds(*(last := ready(server))):
        assert time.monotonic() < deadline, last
        time.sleep(0.1)


def test_one_worker_that_does_not_answer_is_named_until_it_does(start_live_server):
    """Case J114."""
    server = start_live_server(workers=2)
    assert ready(server) == (200, {})
    assert metric_of_workers(server) == "1.0"
    hung = server.worker_process_ids()[0]
    os.kill(hung, signal.SIGSTOP)
    try:
        await_readiness(
            server,
            lambda status, reasons: (
                status == 503 and reasons == {"workers": "a worker does not answer"}
            ),
        )
        assert metric_of_workers(server) == "0.0"
    finally:
        os.kill(hung, signal.SIGCONT)
    await_readiness(server, lambda status, _: status == 200)


# A lock on an SQLite file in WAL mode keeps no reader out.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_keys_that_cannot_be_read_are_named_once_tokens_are_refused(
    start_live_server, database_url, demo
):
    """Case J114."""
    timing = {"refresh_interval_seconds": 1, "snapshot_lifetime_seconds": 10}
    server = start_live_server(keys=timing)
    address = database_url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address) as holder:
        holder.execute("LOCK TABLE signing_key IN ACCESS EXCLUSIVE MODE")
        await_readiness(
            server,
            lambda status, reasons: status == 503 and "last read at" in reasons.get("workers", ""),
        )
        answer = httpx.post(
            f"{server.base_url}/oauth2/token",
            data={"grant_type": "client_credentials"} | demo.post.form(),
            timeout=20,
        )
        assert answer.status_code == 503
    await_readiness(server, lambda status, _: status == 200)


def test_one_connection_is_enough(start_live_server, demo):
    """Case J114."""
    server = start_live_server(database={"pool_size": 1})
    form = {"grant_type": "client_credentials"} | demo.post.form()
    for _ in range(5):
        answer = httpx.post(f"{server.base_url}/oauth2/token", data=form, timeout=10)
        assert answer.status_code == 200
        told = httpx.post(
            f"{server.base_url}/oauth2/introspect",
            data={"token": answer.json()["access_token"]} | demo.mapper.form(),
            headers=demo.mapper.headers(),
            timeout=10,
        )
        assert told.json()["active"] is True
    assert ready(server) == (200, {})


#: What a full disk does: a row that has room goes in, one that needs a new page does not.
FILL_DISK = """
CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE 'could not extend file "base/1"' USING ERRCODE = 'disk_full'; END $$;
CREATE FUNCTION no_new_file() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE 'could not extend file "base/2"' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON revoked_token EXECUTE FUNCTION no_room();
CREATE EVENT TRIGGER no_new_file ON ddl_command_start WHEN TAG IN ('CREATE TABLE AS')
  EXECUTE FUNCTION no_new_file();
"""
CLEAR_DISK = "DROP FUNCTION no_room CASCADE; DROP FUNCTION no_new_file CASCADE;"


# An SQLite file is written once a second.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_without_room_for_a_revocation_is_named_until_it_has(
    start_live_server, database_url, demo
):
    """Case J112: each read works, and so does each token."""
    server = start_live_server()
    form = {"grant_type": "client_credentials"} | demo.post.form()
    answer = httpx.post(f"{server.base_url}/oauth2/token", data=form, timeout=10)
    token = {"token": answer.json()["access_token"]} | demo.post.form()
    address = database_url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as operator:
        operator.execute(FILL_DISK)
        try:
            refused = httpx.post(f"{server.base_url}/oauth2/revoke", data=token, timeout=10)
            assert refused.status_code == 503
            await_readiness(
                server,
                lambda status, _: status == 200 and "could not extend file" in degradations(server),
            )
            issued = httpx.post(f"{server.base_url}/oauth2/token", data=form, timeout=10)
            assert issued.status_code == 200
        finally:
            operator.execute(CLEAR_DISK)
    await_readiness(server, lambda status, _: status == 200 and not degradations(server))
    done = httpx.post(f"{server.base_url}/oauth2/revoke", data=token, timeout=10)
    assert done.status_code == 200
