"""Metrics of the kit: in Prometheus' format, and for any other library."""

import logging
import re
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from authz_verifier import EventPoller, Refusal, Verifier
from authz_verifier.fetching import _clock_offset
from authz_verifier.metrics import DESCRIPTIONS
from authz_verifier.signing import SigningKey
from authz_verifier.testing import DEFAULT_AUDIENCE

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CREDENTIALS = {"client_id": "mapper", "client_secret": "secret"}


def values(verifier) -> dict[str, float]:
    """Return each metric with the values of its labels, and its value."""
    return {
        " ".join([each.name.removeprefix("authz_verifier_"), *each.labels.values()]): each.value
        for each in verifier.metrics()
    }


def refuse(verifier, request, *scopes):
    with pytest.raises(Refusal):
        verifier.authenticate(request, *scopes)


def test_requests_are_counted_by_outcome_and_logged_with_their_reason(
    verifier, issuer, present, caplog
):
    caplog.set_level(logging.INFO, "authz_verifier")
    # From 0, so that the first of each is an increase.
    assert not any(values(verifier).values())
    assert values(verifier)["events_total refused"] == 0
    verifier.authenticate(present(issuer.token("link")), "link")
    refuse(verifier, present(issuer.token("other")), "link")
    refuse(verifier, present(issuer.token("link", aud="https://other.example")), "link")
    refuse(verifier, present(issuer.token(key=SigningKey("ES256"))))
    counted = values(verifier)
    assert counted["requests_total accepted"] == 1
    assert counted["requests_total insufficient_scope"] == 1
    assert counted["requests_total invalid_token"] == 2
    assert counted["unknown_keys_total"] == 1
    assert counted["fetches_total keys success"] == 2
    assert 0 <= counted["keys_age_seconds"] < 60
    assert counted["keys_left_seconds"] > 3600
    assert abs(counted["clock_offset_seconds"]) < 10
    assert "401 invalid_token: aud" in caplog.text


def test_an_outage_is_counted(issuer, present):
    issuer.is_down = True
    with Verifier(issuer.url, DEFAULT_AUDIENCE, mode="introspection", **CREDENTIALS) as verifier:
        refuse(verifier, present(issuer.token()))
        assert values(verifier)["fetches_total keys failure"] == 1
        issuer.is_down = False
        verifier.drop_caches()
        token = issuer.token()
        verifier.authenticate(present(token))
        issuer.is_down = True
        for _ in range(6):
            refuse(verifier, present(token))
        counted = values(verifier)
    assert counted["introspections_total success"] == 1
    assert counted["introspections_total failure"] == 5
    assert counted["introspections_total skipped"] == 1
    assert counted["requests_total temporarily_unavailable"] == 7
    assert counted["breaker_open"] == 1


def test_events_and_polls_are_counted(issuer):
    with Verifier(issuer.url, DEFAULT_AUDIENCE, **CREDENTIALS) as verifier:
        event = issuer.event()
        for token in (event, event, issuer.event(aud="https://other.example")):
            verifier.receive_event(token.encode(), "application/secevent+jwt")
        with EventPoller(verifier):
            until = time.monotonic() + 30
            while not values(verifier)["polls_total success"] and time.monotonic() < until:
                time.sleep(0.02)
        counted = values(verifier)
    outcomes = [counted[f"events_total {name}"] for name in ("taken", "repeated", "refused")]
    assert outcomes == [1, 1, 1]
    assert counted["polls_total success"] >= 1


@pytest.mark.parametrize(("ahead", "warnings"), [(3_600, 1), (-3_600, 1), (5, 0)])
def test_a_clock_that_is_off_is_measured_and_logged_once(issuer, caplog, ahead, warnings):
    def clock():
        return time.time() + ahead

    with Verifier(issuer.url, DEFAULT_AUDIENCE, clock=clock) as verifier:
        for _ in range(2):
            verifier.drop_caches()
            verifier.receive_event(issuer.event().encode(), "application/secevent+jwt")
        assert abs(values(verifier)["clock_offset_seconds"] - ahead) < 5
    assert caplog.text.count("This machine's clock differs") == warnings


@pytest.fixture(params=["UTC", "Africa/Nairobi", "America/Lima"])
def time_zone(request, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("time_zone")
@pytest.mark.parametrize(
    ("date", "offset"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 5),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 5),
        ("Sun Nov  6 08:49:37 1994", 5),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 5),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
        ("soon", None),
        ("", None),
    ],
)
def test_the_time_of_a_response_is_read_in_every_form(date, offset):
    """RFC 9110, 5.6.7: a form without a zone is in UTC, whatever zone is set here."""
    response = httpx.Response(200, headers={"date": date})
    assert _clock_offset(response, 784_111_777 + 5) == offset


def test_prometheus_reads_the_text(verifier, issuer, present):
    verifier.authenticate(present(issuer.token()))
    families = list(text_string_to_metric_families(verifier.metrics_text()))
    read = {(each.name, *each.labels.values()) for found in families for each in found.samples}
    assert read == {(each.name, *each.labels.values()) for each in verifier.metrics()}
    assert {found.type for found in families} == {"counter", "gauge"}


def test_the_example_for_prometheus_client_gives_the_same_samples(verifier, issuer, present):
    verifier.authenticate(present(issuer.token()))
    (code,) = re.findall(r"```python\n(from collections.*?)```", README, re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - the project's own document
    registry = CollectorRegistry()
    registry.register(names["VerifierCollector"](verifier))
    text = generate_latest(registry).decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert {line.partition(" ")[0] for line in samples} == {
        line.partition(" ")[0]
        for line in verifier.metrics_text().splitlines()
        if not line.startswith("#")
    }
    assert "# TYPE authz_verifier_requests_total counter" in text


def test_the_readme_describes_each_metric():
    assert set(re.findall(r"^\| `(authz_verifier_\w+)`", README, re.MULTILINE)) == set(DESCRIPTIONS)
    rules = README.partition("```yaml")[2].partition("```")[0]
    assert set(re.findall(r"authz_verifier_\w+", rules)) <= set(DESCRIPTIONS)
