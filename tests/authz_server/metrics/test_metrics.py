"""The page of metrics adds up the counts of all processes, ended ones too."""

import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authz_server import __version__
from authz_server.metrics.definitions import FAMILIES, UNKNOWN_KID
from authz_server.metrics.events import JwksFetched, RequestAnswered, RequestsShed
from authz_server.metrics.exporter import MetricsPage
from authz_server.metrics.files import METRICS_FOLDER_VARIABLE, open_recorder, reserve_files
from keys.errors import StoreUnavailable
from keys.events import (
    Alarm,
    BackendAnswered,
    BackendFailed,
    BatchSent,
    RingObserved,
    SignatureDiscarded,
    Signed,
    UnknownKidPresented,
    VaultTokenHeld,
)
from keys.memory import MemoryKeyStore
from keys.signing_key import RingDefinition
from support.clock import FakeClock
from support.counting import counting


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    store = MemoryKeyStore(clock)
    store.add_ring(RingDefinition(name="es256", alg="ES256", backend_uri="sql://"))
    return store


@pytest.fixture
def page(tmp_path, store, clock):
    return MetricsPage(tmp_path, store, clock)


def shown(page):
    """Return every sample on the page: the values by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.render().decode())
        for sample in family.samples
    }


def test_what_several_processes_count_is_added_up(tmp_path, page):
    with counting(tmp_path) as one, counting(tmp_path) as two:
        for process in (one, two):
            process.record(Signed("transit", "ES256", "ok", 0.002))
            process.record(SignatureDiscarded("es256", "kid"))
            process.record(UnknownKidPresented())
            process.record(BatchSent(3))
            process.record(JwksFetched(has_next=True))
            process.record(RequestAnswered("token", "ok", 0.002))
            process.record(Alarm("rotation.failed", "es256", "detail"))
        two.record(RequestAnswered("token", "invalid_scope", 0.0001))
        two.record(RequestsShed(7))
        samples = shown(page)

    assert (
        f"# HELP authz_server_jwks_unknown_kid_total {UNKNOWN_KID.sentence}"
        in page.render().decode()
    )
    assert samples["authz_server_key_sign_seconds_count", "ES256", "ok", "transit"] == 2
    assert samples["authz_server_key_sign_seconds_bucket", "0.001", "ES256", "ok", "transit"] == 0
    assert samples["authz_server_key_sign_seconds_bucket", "0.0025", "ES256", "ok", "transit"] == 2
    assert samples["authz_server_key_sign_mismatch_total", "es256"] == 2
    assert samples["authz_server_jwks_unknown_kid_total",] == 2
    assert samples["authz_server_key_batch_size_sum",] == 6
    assert samples["authz_server_jwks_fetch_total", "true"] == 2
    assert samples["authz_server_jwks_fetch_total", "false"] == 0
    assert samples["authz_server_requests_total", "ok", "token"] == 2
    assert samples["authz_server_requests_total", "invalid_scope", "token"] == 1
    assert samples["authz_server_request_seconds_count", "token"] == 3
    assert samples["authz_server_request_seconds_bucket", "0.001", "token"] == 1
    assert samples["authz_server_requests_shed_total",] == 7
    assert samples["authz_server_key_alarms_total", "rotation.failed"] == 2


def test_what_was_never_counted_begins_at_zero(page):
    samples = shown(page)
    assert samples["authz_server_key_sign_mismatch_total", "es256"] == 0
    assert samples["authz_server_key_alarms_total", "privilege.too_wide"] == 0
    assert samples["authz_server_jwks_unknown_kid_total",] == 0
    assert samples["authz_server_build_info", __version__] == 1


def test_an_ended_process_leaves_its_counts_and_takes_the_present_with_it(tmp_path, page):
    with counting(tmp_path) as process:
        process.record(UnknownKidPresented())
        process.record(RingObserved("es256"))
        process.record(VaultTokenHeld("main", 60, 120))
        process.record(BackendFailed("transit://t/k", "sealed"))
        assert shown(page)["authz_server_vault_token_full_ttl_seconds", "main"] == 120
        reserved = sum(file.stat().st_size for file in tmp_path.iterdir())

    samples = shown(page)
    assert samples["authz_server_jwks_unknown_kid_total",] == 1
    assert samples["authz_server_key_view_success_timestamp", "es256"] > 0
    assert not [name for name, *_ in samples if name.startswith("vault_token")]
    assert ("authz_server_key_backend_up", "transit://t/k") not in samples
    # Servers whose workers end often do not fill the disk.
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < reserved / 20
    assert shown(page)["authz_server_jwks_unknown_kid_total",] == 1


def test_the_process_that_asked_last_knows_whether_a_backend_answers(tmp_path, page):
    with counting(tmp_path) as one, counting(tmp_path) as two:
        one.record(BackendAnswered("transit://t/k"))
        two.record(BackendFailed("transit://t/k", "refused"))
        two.record(RingObserved("es256"))
        assert shown(page)["authz_server_key_backend_up", "transit://t/k"] == 0
        known = page.known_backends()
        assert (known.down, known.viewed_rings) == ({"transit://t/k"}, {"es256"})
        one.record(BackendAnswered("transit://t/k"))
        assert shown(page)["authz_server_key_backend_up", "transit://t/k"] == 1
        assert not page.known_backends().down


def test_the_vault_token_with_the_least_time_left_counts_and_runs_out(tmp_path, store):
    now = FakeClock()
    with counting(tmp_path) as one, counting(tmp_path) as two:
        one.record(VaultTokenHeld("main", 3_000, 3_600))
        two.record(VaultTokenHeld("main", 1_000, 3_600))
        two.record(VaultTokenHeld("root", 0, 0))
        two.record(VaultTokenHeld("dead", 0, 3_600))
        # The processes count by the real time.
        page = MetricsPage(tmp_path, store, now)
        now.advance(tmp_path.stat().st_mtime - now().timestamp())
        left = shown(page)
        assert left["authz_server_vault_token_ttl_seconds", "main"] == pytest.approx(1_000, abs=5)
        assert left["authz_server_vault_token_full_ttl_seconds", "main"] == 3_600
        assert left["authz_server_vault_token_ttl_seconds", "root"] == math.inf
        assert left["authz_server_vault_token_ttl_seconds", "dead"] <= 5
        now.advance(900)
        assert shown(page)["authz_server_vault_token_ttl_seconds", "main"] == pytest.approx(
            100, abs=5
        )
        now.advance(900)
        assert shown(page)["authz_server_vault_token_ttl_seconds", "main"] == 0


def test_a_database_that_is_away_leaves_what_was_counted(tmp_path, clock):
    class NoStore(MemoryKeyStore):
        def load_rings(self, loaded_at):
            raise StoreUnavailable(loaded_at)

    with counting(tmp_path) as process:
        process.record(UnknownKidPresented())
        samples = shown(MetricsPage(tmp_path, NoStore(), clock))
    assert samples["authz_server_key_store_up",] == 0
    assert samples["authz_server_jwks_unknown_kid_total",] == 1


def test_a_full_disk_cannot_end_a_process_that_counts(tmp_path):
    # Nothing is written into a hole of a mapped file later: all blocks are there.
    reserve_files(tmp_path, 1)
    for file in tmp_path.iterdir():
        status = file.stat()
        assert status.st_blocks * 512 >= status.st_size > 0, file.name


def test_files_may_be_read_while_a_process_makes_them(tmp_path, page, monkeypatch):
    """The server was not ready for a moment while a worker started."""
    reserve, read = os.posix_fallocate, []

    def read_first(*arguments) -> None:
        read.append(shown(page))
        reserve(*arguments)

    monkeypatch.setattr("os.posix_fallocate", read_first)
    reserve_files(tmp_path, os.getpid())
    assert len(read) == len(list(tmp_path.iterdir()))


def test_a_process_with_the_id_of_an_ended_one_counts_on(tmp_path):
    reserve_files(tmp_path, 1)
    for file in tmp_path.iterdir():
        file.write_bytes(b"counted")
    reserve_files(tmp_path, 1)
    assert {file.read_bytes()[:7] for file in tmp_path.iterdir()} == {b"counted"}


def test_pages_are_rendered_by_several_threads_after_processes_ended(tmp_path, page):
    for process_id in range(2**22 + 1, 2**22 + 200):
        reserve_files(tmp_path, process_id)
    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(lambda _: shown(page), range(16)))) == 16


def test_the_space_reserved_is_enough_for_every_label_that_occurs(tmp_path):
    with counting(tmp_path) as process:
        process.record(UnknownKidPresented())
        before = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
        for backend in ("transit", "pkcs11"):
            for alg in ("ES256", "ES384", "RS256", "EdDSA"):
                for result in ("ok", "unavailable", "denied", "unusable", "broken"):
                    process.record(Signed(backend, alg, result, 0.1))
        for number in range(20):
            process.record(Alarm(f"some.alarm_{number}", "", ""))
            process.record(SignatureDiscarded(f"ring-{number}", ""))
            process.record(BackendAnswered(f"transit://transit/some-key-{number}?vault=main"))
        assert {file.name: file.stat().st_size for file in tmp_path.iterdir()} == before


def test_without_a_place_nobody_counts(tmp_path, caplog):
    assert open_recorder({}) is None
    with caplog.at_level(logging.WARNING):
        assert open_recorder({METRICS_FOLDER_VARIABLE: str(tmp_path / "gone")}) is None
    assert "records no metrics" in caplog.text


def test_requests_are_added_up_where_somebody_says_when_to_write(tmp_path, page):
    with counting(tmp_path) as process:
        process.record("add_up")
        process.record(RequestAnswered("token", "ok", 0.002))
        process.record(RequestAnswered("token", "ok", 30.0))
        assert "authz_server_requests_total" not in {name for name, *_ in shown(page)}
        for _ in range(2):
            process.record("flush")
        samples = shown(page)
    assert samples["authz_server_requests_total", "ok", "token"] == 2
    assert samples["authz_server_request_seconds_sum", "token"] == pytest.approx(30.002)
    assert samples["authz_server_request_seconds_bucket", "2.5", "token"] == 1
    assert samples["authz_server_request_seconds_bucket", "+Inf", "token"] == 2


def test_the_families_are_named_by_their_kind():
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert bool(family.buckets) == (family.kind == "histogram"), family.name
