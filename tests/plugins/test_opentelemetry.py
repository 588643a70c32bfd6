"""The bundled plugin that exports by OTLP, to a receiver in this process that decodes protobuf."""

import gzip
import logging
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from authz_server.audit.events import ServerStarted, ServerStopped
from authz_server.plugin_api import Secret
from plugins.opentelemetry.options import read_options
from support.settings_file import write_secret
from support.stage import ApplicationFixture

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


class Collector:
    """An OTLP receiver; `received` holds the decoded requests by path."""

    def __init__(self, port=0):
        self.received = {path: [] for path in REQUESTS}
        self.headers, self.status = [], 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.append(self.headers)
                if collector.status == 200:
                    collector.received[self.path].append(REQUESTS[self.path].FromString(body))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def spans(self):
        return [
            span
            for request in list(self.received["/v1/traces"])
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self):
        return {
            metric.name: metric
            for request in list(self.received["/v1/metrics"])
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def records(self):
        return [
            record
            for request in list(self.received["/v1/logs"])
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


def attributes(one):
    values = {each.key: each.value for each in one.attributes}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in values.items()}


def requests_of(collector):
    return [span for span in collector.spans() if span.name.startswith("POST ")]


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def make_site(database_url, tmp_path):
    sites = []

    def make(endpoint, **settings):
        write_secret(tmp_path / "collector-token", "Bearer of-the-collector")
        own = {
            "endpoint": endpoint,
            "interval_seconds": 1,
            "timeout_seconds": 1,
            "headers": {"Authorization": {"file": "collector-token"}},
        }
        site = ApplicationFixture(
            tmp_path,
            database_url,
            plugins={"enabled": ["opentelemetry"], "settings": {"opentelemetry": own | settings}},
        )
        sites.append(site)
        site.services.notify(
            ServerStarted(version="1.2", issuer="https://authz.example", process_id=7)
        )
        return site

    yield make
    for site in sites:
        began = time.monotonic()
        site.services.notify(ServerStopped(process_id=7))
        assert time.monotonic() - began < 20, "a collector delays no exit"
        site.close()


def ask(site, **headers):
    form = {"grant_type": "client_credentials", "scope": "basic-jwt/read"}
    return site.post("token", form, site.callers["client-basic"], headers)


def eventually(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture
def all_logged(monkeypatch):
    """Forget what was logged before."""
    monkeypatch.setattr("plugins.opentelemetry.collector._SELDOM._next_at", {})


def test_a_request_is_a_span_below_that_of_its_sender(make_site, collector):
    site = make_site(collector.address, signals=["traces"])
    answer = ask(site, traceparent=TRACEPARENT, tracestate="vendor=1")
    assert answer.status_code == 200
    ask(site, traceparent="00-not-a-trace-01")
    site.post("introspect", {"token": "x"})
    spans = eventually(lambda: len(requests_of(collector)) == 3 and requests_of(collector))
    by_route = {(span.name, span.parent_span_id.hex()): span for span in spans}
    child = by_route["POST /oauth2/token", PARENT]
    assert (child.trace_id.hex(), child.trace_state) == (TRACE, "vendor=1")
    assert 0 < child.end_time_unix_nano - child.start_time_unix_nano < 5_000_000_000
    found = attributes(child)
    assert found["authz_server.client_id"] == "client-basic"
    assert found["authz_server.request_id"] == answer.headers["X-Request-Id"]
    assert (found["http.response.status_code"], found["authz_server.outcome"]) == (200, "ok")
    assert by_route["POST /oauth2/token", ""].trace_id.hex() != TRACE
    refused = attributes(by_route["POST /oauth2/introspect", ""])
    assert (refused["http.response.status_code"], refused["authz_server.outcome"]) == (
        401,
        "invalid_client",
    )
    resource = collector.received["/v1/traces"][0].resource_spans[0].resource
    assert attributes(resource)["service.name"] == "authz-server"
    assert collector.headers[0]["Authorization"] == "Bearer of-the-collector"


def test_each_wait_of_a_request_is_a_span_below_it(make_site, collector, monkeypatch):
    """As of a remote key: the signature waits in a lane of its own."""
    site = make_site(collector.address, signals=["traces"])
    token = site.token()
    site.services.key_rings  # noqa: B018 - made before it is replaced
    monkeypatch.setattr(type(site.services.key_rings), "waits_to_sign", lambda *_: True)
    sign = site.services.key_rings.sign

    def sign_slowly(*values, **named):
        time.sleep(0.05)
        return sign(*values, **named)

    monkeypatch.setattr(site.services.key_rings, "sign", sign_slowly)
    site.token()
    site.introspect(token)
    spans = eventually(lambda: len(requests_of(collector)) == 3 and collector.spans())
    parents = {span.span_id: span for span in spans if span.name.startswith("POST ")}
    waits = {
        (span.name, parents[span.parent_span_id].name): span
        for span in spans
        if span.name.startswith("wait ")
    }
    assert {
        ("wait signing", "POST /oauth2/token"),
        ("wait database", "POST /oauth2/introspect"),
    } <= {*waits}
    for span in waits.values():
        parent = parents[span.parent_span_id]
        assert span.trace_id == parent.trace_id
        assert parent.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= parent.end_time_unix_nano
    signing = waits["wait signing", "POST /oauth2/token"]
    assert signing.end_time_unix_nano - signing.start_time_unix_nano >= 50_000_000


def test_a_sender_that_is_not_sampled_makes_no_span(make_site, collector):
    site = make_site(collector.address, signals=["traces"], sample_ratio=0.0)
    ask(site, traceparent=TRACEPARENT.removesuffix("1") + "0")
    ask(site)
    ask(site, traceparent=TRACEPARENT)
    spans = eventually(lambda: requests_of(collector))
    assert [span.trace_id.hex() for span in spans] == [TRACE]


def test_durations_and_events_are_metrics(make_site, collector):
    site = make_site(collector.address, signals=["metrics"])
    for _ in range(3):
        ask(site)
    eventually(
        lambda: {"http.server.request.duration", "authz_server.events"} <= {*collector.metrics()}
    )

    def counted():
        points = collector.metrics()["authz_server.events"].sum.data_points
        return {attributes(point)["event.name"]: point.as_int for point in points}

    eventually(lambda: counted().get("token.issued") == 3)
    (point,) = collector.metrics()["http.server.request.duration"].histogram.data_points
    assert (point.count, attributes(point)["http.route"]) == (3, "/oauth2/token")
    assert len(point.explicit_bounds) == 13


def test_log_records_are_sent_redacted(make_site, collector):
    make_site(collector.address, signals=["logs"])
    logger = logging.getLogger("authz_server.clients")
    logger.warning("the secret=%s is wrong", "hunter2hunter2")
    try:
        int("a fault")
    except ValueError:
        logger.exception("it failed")
    records = eventually(lambda: len(collector.records()) >= 2 and collector.records())
    texts = {record.body.string_value: record for record in records}
    assert "the secret=[redacted] is wrong" in texts
    assert texts["the secret=[redacted] is wrong"].severity_text == "WARNING"
    assert attributes(texts["it failed"])["exception.type"] == "ValueError"


@pytest.mark.parametrize("kind", ["absent", "fails", "slow"])
def test_a_collector_that_is_away_or_slow_slows_no_token(make_site, collector, kind):
    released = threading.Event()
    address = collector.address
    if kind == "absent":
        address = "http://127.0.0.1:1"
    elif kind == "fails":
        collector.status = 503
    site = make_site(address, queue_size=16)
    if kind == "slow":
        original = collector.server.RequestHandlerClass.do_POST

        def wait(handler):
            released.wait(20)
            original(handler)

        collector.server.RequestHandlerClass.do_POST = wait
    ask(site)
    took = []
    for _ in range(60):
        began = time.monotonic()
        assert ask(site).status_code == 200
        took.append(time.monotonic() - began)
        time.sleep(0.03)
    released.set()
    # A pause of the machine may be longer.
    assert sorted(took)[-3] < 0.5


@pytest.mark.usefixtures("all_logged")
def test_a_collector_that_vanishes_gets_what_follows_when_it_is_back(make_site, caplog):
    collector = Collector()
    site = make_site(collector.address)
    ask(site)
    eventually(lambda: requests_of(collector) and collector.metrics())
    port = collector.server.server_port
    collector.close()
    for _ in range(4):
        ask(site)
        time.sleep(1)
    back = Collector(port)
    try:
        ask(site)
        eventually(lambda: requests_of(back) and back.metrics())
        (point,) = back.metrics()["http.server.request.duration"].histogram.data_points
        assert point.count >= 5, "metrics count what happened meanwhile"
    finally:
        back.close()
    for kind in ("spans", "metrics"):
        assert caplog.text.count(f"Failed to export {kind} batch") == 1, "once in some minutes"


@pytest.mark.usefixtures("all_logged")
def test_a_collector_that_redirects_is_not_followed_and_counts_as_failed(
    make_site, collector, caplog
):
    collector.status = 302
    site = make_site(collector.address, signals=["traces"])
    ask(site)
    eventually(lambda: "reason: the answer has status 302" in caplog.text)
    collector.status = 200
    ask(site)
    eventually(lambda: requests_of(collector))


def test_an_answer_without_end_holds_up_no_export(make_site, collector):
    original = collector.server.RequestHandlerClass.do_POST
    ended = threading.Event()

    def answer(handler):
        original(handler)
        with suppress(OSError):
            while True:
                handler.wfile.write(b"x" * 10_000)
        ended.set()

    def without_length(handler, name, value):
        if name != "Content-Length":
            BaseHTTPRequestHandler.send_header(handler, name, value)

    collector.server.RequestHandlerClass.do_POST = answer
    collector.server.RequestHandlerClass.send_header = without_length
    site = make_site(collector.address, signals=["traces"])
    for number in range(1, 4):
        ask(site)
        eventually(lambda number=number: len(requests_of(collector)) == number)
    assert ended.wait(5), "the connection is ended"


@pytest.mark.parametrize(
    "settings",
    [
        {"endpont": "x"},
        {"endpoint": 7},
        {"endpoint": "collector:4318"},
        {"endpoint": "http://collector:70000"},
        {"ca_file": "/dev/null"},
        {"signals": []},
        {"signals": ["spans"]},
        {"signals": "traces"},
        {"headers": ["x"]},
        {"headers": {"x": 1}},
        {"headers": {"x": "a\nb"}},
        {"headers": {"x": "\N{SNOWMAN}"}},
        {"headers": {"x": " a"}},
        {"headers": {"x y": "a"}},
        {"headers": {"x:": "a"}},
        {"headers": {"": "a"}},
        {"headers": {"x": Secret(b"\xff")}},
        {"sample_ratio": 2},
        {"sample_ratio": True},
        {"timeout_seconds": 0},
        {"interval_seconds": "1"},
        {"queue_size": 1},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_refused(settings):
    with pytest.raises(ValueError, match=r"\S"):
        read_options(settings)
