"""Refusals are recorded one by one while they are few, and with a count when they are many."""

import logging
import os
import threading
import tracemalloc
from collections import Counter

import pytest

from authz_server.audit.events import (
    IntrospectionRefused,
    RequestRefused,
    RevocationRefused,
    TokenRefused,
)
from authz_server.audit.notifier import AuditUnavailable
from authz_server.audit.operator_events import OperatorSignInRefused
from authz_server.endpoints import refusals as refusals_module
from authz_server.endpoints.refusals import RefusalRecorder
from authz_server.errors import REASONS
from authz_server.logs import MAXIMUM_LINE_BYTES, encode_line

WINDOW_SECONDS = 60


class Recorded(list):
    """Takes events; fails while it is told to."""

    fails = False

    def record(self, event):
        if self.fails:
            raise AuditUnavailable("no space")
        self.append(event)

    @property
    def counts(self):
        return [event.count for event in self]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def seconds() -> list[float]:
    """The present time of the recorder, in its only element."""
    return [1_000.0]


@pytest.fixture
def recorder(recorded, seconds) -> RefusalRecorder:
    return RefusalRecorder(recorded.record, monotonic=lambda: seconds[0])


def refusal(kind=TokenRefused, address="192.0.2.1", reason="secret_wrong", **values):
    """Return a refusal as an endpoint reports it."""
    error = REASONS[reason].error if reason in REASONS else "invalid_client"
    fields = {"request_id": "f" * 16, "message_id": "m", "error": error} | values
    return kind(source_address=address, reason=reason, **fields)


def test_first_ten_of_a_minute_are_recorded_as_they_are(recorder, recorded):
    """Case K124."""
    events = [refusal(request_id=f"{n:016}", client_id="a") for n in range(10)]
    for event in events:
        recorder.record(event)
    assert recorded == events


def test_others_are_recorded_with_a_count_when_the_minute_has_ended(recorder, recorded, seconds):
    """Case K124."""
    for _ in range(1_000):
        recorder.record(refusal(client_id="a", detail="same"))
    assert len(recorded) == 10
    seconds[0] += WINDOW_SECONDS - 1
    recorder.flush()
    assert len(recorded) == 10
    seconds[0] += 1
    recorder.flush()
    (last,) = recorded[10:]
    assert last == TokenRefused(
        source_address="192.0.2.1",
        client_id="a",
        error="invalid_client",
        reason="secret_wrong",
        detail="same",
        count=990,
    )
    recorder.flush()
    assert sum(recorded.counts) == 1_000


def test_next_minute_begins_with_ten_again(recorder, recorded, seconds):
    for _ in range(3):
        for _ in range(15):
            recorder.record(refusal())
        seconds[0] += WINDOW_SECONDS
    recorder.flush()
    assert recorded.counts == [*[1] * 10, 5] * 3


def test_minute_ends_without_a_background_job_too(recorder, recorded, seconds):
    for _ in range(15):
        recorder.record(refusal())
    seconds[0] += WINDOW_SECONDS
    recorder.record(refusal(reason="client_unknown"))
    assert [(event.reason, event.count) for event in recorded[10:]] == [
        ("secret_wrong", 5),
        ("client_unknown", 1),
    ]


def test_end_of_the_process_records_all_counts(recorder, recorded):
    for _ in range(15):
        recorder.record(refusal())
    recorder.flush(at_once=True)
    assert recorded.counts == [*[1] * 10, 5]


@pytest.mark.parametrize(
    "other",
    [
        {"kind": IntrospectionRefused},
        {"kind": RevocationRefused},
        {"kind": RequestRefused},
        {"reason": "client_unknown"},
        {"address": "192.0.2.2"},
        {"address": "2001:db8::1"},
    ],
)
def test_event_network_and_reason_are_counted_apart(recorder, recorded, other):
    for _ in range(12):
        recorder.record(refusal())
    event = refusal(**other)
    recorder.record(event)
    assert recorded[10:] == [event]


def test_addresses_of_one_network_are_counted_together(recorder, recorded):
    for number in range(15):
        recorder.record(refusal(address=f"2001:db8:0:1::{number}"))
    recorder.flush(at_once=True)
    assert len(recorded) == 11
    assert (recorded[10].source_address, recorded[10].count) == ("2001:db8:0:1::/64", 5)


def test_value_that_differs_is_left_out_of_the_count(recorder, recorded):
    for number in range(20):
        recorder.record(refusal(client_id=f"client-{number}", detail=f"detail {number}"))
    recorder.flush(at_once=True)
    last = recorded[-1]
    assert (last.client_id, last.detail, last.request_id, last.message_id) == ("", "", "", "")
    assert last.count == 10


def test_clients_with_proven_credentials_are_counted_apart(recorder, recorded):
    """A flood of one of them, or of strangers, hides no refusal of another."""
    for number in range(400):
        recorder.record(refusal(address=f"192.0.{number % 250}.1"))
        recorder.record(refusal(reason="scope_not_granted", client_id="noisy"))
    assert sum(event.reason == "secret_wrong" for event in recorded) == 300
    event = refusal(reason="scope_not_granted", client_id="quiet")
    recorder.record(event)
    assert recorded[-1] is event
    recorder.flush(at_once=True)
    counts = Counter()
    for event in recorded:
        counts[event.reason, event.client_id] += event.count
    assert counts == {
        ("secret_wrong", ""): 400,
        ("scope_not_granted", "noisy"): 400,
        ("scope_not_granted", "quiet"): 1,
    }


@pytest.mark.parametrize("reason", ["certificate_wrong", "client_document_unusable", "of_a_plugin"])
def test_clients_that_are_only_claimed_are_not_counted_apart(recorder, recorded, reason):
    for number in range(40):
        recorder.record(refusal(reason=reason, client_id=f"claimed-{number}"))
    assert len(recorded) == 10


def test_refused_log_ins_are_counted_too(recorder, recorded):
    for number in range(40):
        recorder.record(
            OperatorSignInRefused(
                operator=f"claimed-{number}", path="/login", reason="cross_site", detail="form"
            )
        )
    recorder.flush(at_once=True)
    assert recorded.counts == [*[1] * 10, 30]
    last = recorded[-1]
    assert (last.operator, last.path, last.detail) == ("", "/login", "form")


def test_many_sources_grow_neither_memory_nor_records_without_bound(recorder, recorded):
    """Case A13."""

    def flood(rounds: range) -> None:
        for number in rounds:
            address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            recorder.record(refusal(address=address, client_id="*" * 20))
            recorder.record(
                refusal(address=address, reason="scope_not_granted", client_id=f"client-{number}")
            )

    flood(range(2_000))
    tracemalloc.start()
    try:
        flood(range(2_000, 20_000))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 500_000
    recorder.flush(at_once=True)
    assert sum(recorded.counts) == 40_000
    assert len(recorded) < 2_000
    unnamed = [event for event in recorded if not event.source_address]
    assert {event.reason for event in unnamed} == {"secret_wrong", "scope_not_granted"}


def test_counts_are_kept_while_nothing_can_be_recorded(recorder, recorded, seconds, caplog):
    for reason in ("secret_wrong", "client_unknown"):
        for _ in range(15):
            recorder.record(refusal(reason=reason))
    recorded.fails = True
    seconds[0] += WINDOW_SECONDS
    with caplog.at_level(logging.WARNING):
        recorder.flush()
    assert "no space" in caplog.text
    with pytest.raises(AuditUnavailable):
        recorder.record(refusal())
    recorded.fails = False
    seconds[0] += WINDOW_SECONDS
    recorder.flush()
    assert [(event.reason, event.count) for event in recorded[20:]] == [
        ("secret_wrong", 5),
        ("client_unknown", 5),
    ]


def test_threads_lose_no_refusal(recorded):
    recorder = RefusalRecorder(recorded.record)

    def refuse() -> None:
        for number in range(500):
            recorder.record(refusal(address=f"192.0.2.{number % 7}"))

    threads = [threading.Thread(target=refuse) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.flush(at_once=True)
    assert sum(recorded.counts) == 2_000


def test_forked_process_begins_without_the_counts_of_its_parent(recorder, recorded):
    for _ in range(15):
        recorder.record(refusal())
    # Held by a thread that the child does not have.
    recorder._lock.acquire()  # noqa: SLF001 - as at the instant of a fork
    child = os.fork()
    if child == 0:
        recorder.record(refusal())
        recorder.flush(at_once=True)
        os._exit(recorded.counts != [1] * 11)
    _, status = os.waitpid(child, 0)
    recorder._lock.release()  # noqa: SLF001 - likewise
    assert os.waitstatus_to_exitcode(status) == 0
    recorder.flush(at_once=True)
    assert recorded.counts == [*[1] * 10, 5]


def test_bounds_are_what_the_document_says():
    """``docs/events.md`` names them."""
    bounds = (refusals_module.SINGLE_OF_A_KIND, refusals_module.SINGLE_IN_ALL)
    assert (*bounds, refusals_module.MAXIMUM_KINDS) == (10, 300, 500)


@pytest.mark.parametrize("character", ["a", '"', "\x01", "\u2028", "😀"])
def test_no_record_of_a_refusal_is_longer_than_a_line_of_the_log(recorder, recorded, character):
    """Log shippers cut longer lines, which makes them invalid JSON."""
    long = character * 8_000
    recorder.record(refusal(detail=long, client_id="*" * 128, message_id="m" * 128))
    recorder.record(OperatorSignInRefused(reason="passkey_refused", path=long, detail=long))
    for event in recorded:
        assert len(encode_line(event)) < MAXIMUM_LINE_BYTES - 512  # time and chain
        assert 150 < len(event.detail) < 8_000
        assert long.startswith(event.detail)
