"""The benchmark prints no ratios of a busy machine, and nothing after a wrong answer."""

import os
import sys
import time
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from runpy import run_module
from subprocess import Popen

import pytest
from starlette.testclient import TestClient

from authz_verifier.testing import LocalIssuer
from bench.arrivals import Arrival
from bench.contenders import Contender, open_contenders
from bench.cpu_time import Process, Snapshot, cores_of_others, take_snapshot
from bench.free_cores import LIMIT_CORES, REPEATS, FreeCores
from bench.guarded import open_api, require_refusals
from bench.guarded_servers import Route
from bench.load import Fresh, Request, UnexpectedAnswerError
from bench.measurement import Round, make_rows
from bench.rates import find_recovery_seconds
from bench.report import make_page, make_result, write_result
from bench.servers import Server
from bench.turns import Plan, Turn, take_rounds
from bench.verifiers import BARE, SCOPE, SIGNATURE, make_calls, make_flask_calls
from support.not_run import skip_as_not_run

PLAN = Plan(rounds=1, seconds=1, warm_up_seconds=1, jit_warm_up_seconds=1)
OWN = os.getpid()


def turn(name, run):
    return Turn(name, [], lambda: None, run)


def table():
    medians = {"processor_microseconds": 100.0, "p99_to_p50": 4.0}
    row = {
        "name": "authz-server on SQLite",
        "does": "work",
        "medians": medians,
        "ratios": {"bare_flask": 1.23},
        "rounds": [dict(medians)],
    }
    return {"kind": "latency", "title": "At a rate", "rows": [row], "stopped": {}}


def test_the_page_judges_what_a_decision_of_the_kit_costs(tmp_path):
    values = {"processor_microseconds": 57.0, "added_microseconds": 12.2}
    row = {"name": "authz-verifier", "does": "verifies", "medians": values, "ratios": {}}
    kit = {"kind": "verifier", "title": "", "rows": [row | {"rounds": [values]}], "stopped": {}}
    groups = [{"title": "A token", "tables": [kit], "not_measured": {}}]
    write_result("verifier", make_result(groups, PLAN, "", [0, 0]), tmp_path)
    goal = "- A token: a decision costs at most 25 µs beside the signature: met, 12.2."
    assert goal in make_page(tmp_path)


@pytest.mark.parametrize("objection", ["", "The machine was busy"])
def test_a_busy_machine_gives_a_sentence_instead_of_ratios(objection, tmp_path):
    groups = [{"title": "Group", "tables": [table()], "not_measured": {"Peer": "no Java"}}]
    write_result("latency", make_result(groups, PLAN, objection, [0, 0]), tmp_path)
    page = make_page(tmp_path)
    assert ("1.23" in page) == (not objection)
    assert ("at most 10 times p50" in page) == (not objection)
    assert ("The machine was busy. So there are no ratios." in page) == bool(objection)
    assert "Not measured: Peer: no Java." in page
    assert ("p99_to_p50" in (tmp_path / "latency.json").read_text()) == (not objection)


def test_a_turn_with_an_unexpected_answer_ends_its_run_and_no_other():
    def refuse():
        raise UnexpectedAnswerError("503")

    cores = FreeCores(0, allow_busy=True)
    rounds = take_rounds([turn("good", lambda: 1), turn("bad", refuse)], 2, cores)
    assert [one.value for one in rounds.taken["good"]] == [1, 1]
    assert "bad" not in rounds.taken
    assert rounds.stopped == {"bad": "503"}


def test_a_busy_turn_is_repeated_a_bounded_number_of_times_and_then_marked():
    cores = FreeCores(60, allow_busy=False)
    assert not cores.may_repeat(LIMIT_CORES / 2, repeats=0)
    assert cores.may_repeat(LIMIT_CORES, repeats=REPEATS - 1)
    assert not cores.may_repeat(LIMIT_CORES, repeats=REPEATS)
    cores.record(LIMIT_CORES / 2)
    assert cores.objection() == ""
    cores.record(0.5)
    assert "1 of 2 turns" in cores.objection()
    assert "50% of a core" in cores.objection()


def test_fresh_requests_are_made_before_a_turn_and_are_all_different(tmp_path):
    numbers = count()
    one = Request(
        "/token",
        {"a": "b"},
        "",
        fresh=lambda: Fresh({"jti": f"{next(numbers)}"}, f"p{next(numbers)}"),
    )
    prepared = one.prepare(2, tmp_path / "requests")
    assert prepared.prepared is not None
    assert prepared.prepared.read_text() == "p1\na=b&jti=0\np3\na=b&jti=2\n"
    same = Request("/token", {"a": "b"}, "")
    assert same.prepare(2, tmp_path / "none") is same


def test_a_turn_is_prepared_each_time_it_is_measured():
    calls = []
    one = Turn(
        "one", [], lambda: None, lambda: calls.append("run"), lambda: calls.append("prepare")
    )
    take_rounds([one], 2, FreeCores(0, allow_busy=True))
    assert calls == ["prepare", "run"] * 2


def test_contenders_that_are_not_measured_are_suspended_meanwhile():
    def state(process):
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    with Popen(["sleep", "60"]) as running, Popen(["sleep", "60"]) as idle:
        try:
            turns = [
                Turn("one", [running.pid], lambda: None, lambda: (state(running), state(idle))),
                Turn("other", [idle.pid], lambda: None, lambda: None),
            ]
            taken = take_rounds(turns, 1, FreeCores(0.001, allow_busy=False)).taken
            assert taken["one"][0].value == ("S", "T")
            assert state(idle) == "S"
        finally:
            running.kill()
            idle.kill()


def test_cores_of_others_leave_out_the_measured_tree_and_the_benchmark():
    def snapshot(moment, machine, own, server, child):
        processes = {OWN: Process(1, own), 2: Process(OWN, server), 3: Process(2, child)}
        return Snapshot(moment, machine, processes)

    before = snapshot(0.0, 10.0, 1.0, 1.0, 1.0)
    after = snapshot(2.0, 13.0, 1.2, 1.8, 2.0)
    assert cores_of_others(before, after, [2]) == pytest.approx((3 - 0.2 - 1.8) / 2)
    assert cores_of_others(before, after, []) == pytest.approx((3 - 0.2) / 2)


def test_a_snapshot_counts_the_time_that_this_process_uses():
    before, end = take_snapshot(), time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = take_snapshot()
    assert after.tree_seconds(OWN) - before.tree_seconds(OWN) >= 0.08
    assert after.machine_seconds > before.machine_seconds


@pytest.mark.parametrize(
    ("outcome", "took", "recovery"),
    [(200, 100, 0.0), (503, 100, 0.75), (200, 20_000, 0.75), (-2, 0, 0.75)],
)
def test_recovery_ends_with_the_last_window_of_bad_answers(outcome, took, recovery):
    good = [Arrival(moment, 0, 100, 200) for moment in range(0, 2_000_000, 10_000)]
    arrivals = [*good, Arrival(600_000, 0, took, outcome)]
    assert find_recovery_seconds(arrivals, 10_000) == recovery


def test_each_verifier_accepts_a_sound_token_and_refuses_others():
    with LocalIssuer() as issuer:
        for make, floor in ((make_calls, SIGNATURE), (make_flask_calls, BARE)):
            assert all(call() for call in make(issuer, issuer.token(SCOPE)).values())
            for bad in (issuer.token("other"), issuer.token(SCOPE, exp=1)):
                for name, call in make(issuer, bad).items():
                    accepted = False
                    with suppress(Exception):
                        accepted = bool(call())
                    assert accepted == (name == floor), name


def sends_to(name: str, issuer: LocalIssuer, guard: str, monkeypatch):
    """Return a function of a token: the status of a guarded application of the benchmark."""
    for variable, value in (
        *(("GUARD", guard), ("ISSUER", issuer.url)),
        *(("AUDIENCE", issuer.audience), ("SCOPE", SCOPE), ("SETTINGS", "{}")),
    ):
        monkeypatch.setenv(f"BENCH_{variable}", value)
    monkeypatch.delitem(sys.modules, "bench.applications.guard", raising=False)
    application = run_module(f"bench.applications.{name}")["application"]
    client = application.test_client() if name == "guarded_flask" else TestClient(application)

    def status(token: str) -> int:
        return client.post("/", headers={"Authorization": f"Bearer {token}"}).status_code

    return status


@pytest.mark.parametrize(
    ("name", "guard", "statuses"),
    [
        ("guarded_flask", "", [200, 200, 200]),
        ("guarded_flask", "authz-verifier", [200, 403, 401]),
        ("guarded_flask", "Authlib", [200, 403, 401]),
        ("guarded_fastapi", "", [200, 200, 200]),
        ("guarded_fastapi", "authz-verifier", [200, 403, 401]),
    ],
)
def test_the_applications_guard_their_route_or_not_at_all(name, guard, statuses, monkeypatch):
    with LocalIssuer() as issuer:
        status = sends_to(name, issuer, guard, monkeypatch)
        tokens = (issuer.token(SCOPE), issuer.token("other"), issuer.token(SCOPE, exp=1))
        assert [status(each) for each in tokens] == statuses


def a_round(processor_microseconds):
    return Round(1, 1.0, 1.0, 1, 1, processor_microseconds, None, 0.0, 0.0)


def test_a_guard_is_compared_with_its_floor_in_the_same_round():
    server = Server(1, 1)
    bare = Contender("bare", "no guard", server, lambda: None, bases={"floor": "bare"})
    guarded = Contender("guarded", "verifies", server, lambda: None, bases={"floor": "bare"})
    rounds = {
        "bare": [a_round(each) for each in (10.0, 30.0, 20.0)],
        "guarded": [a_round(each) for each in (60.0, 45.0, 80.0)],
    }
    rows = make_rows([bare, guarded], rounds)
    assert [row["medians"]["added_microseconds"] for row in rows] == [0.0, 50.0]
    assert [row["ratios"]["floor"] for row in rows] == [1.0, 4.0]
    alone = make_rows([guarded], {"guarded": rounds["guarded"]})
    assert "added_microseconds" not in alone[0]["medians"]


def test_a_server_that_is_not_at_hand_is_named_with_what_would_let_it_run(tmp_path):
    def start(*_):
        skip_as_not_run("the settings for Spring Security", "apt install maven (mvn)")

    settings = {"Spring Security": partial(open_api, None, start, asks=False)}
    with open_contenders(settings, tmp_path) as (running, absent):
        assert running == []
        assert absent == {"Spring Security": "apt install maven (mvn)"}


def test_a_guard_that_serves_a_token_without_the_scope_is_not_measured():
    with LocalIssuer() as issuer:
        port = int(issuer.url.rpartition(":")[2])
        route = Route(Server(port, OWN), "verifies", "/jwks", "GET", "keys")
        with pytest.raises(AssertionError, match="lax: 200"):
            require_refusals(issuer, "lax", route)
