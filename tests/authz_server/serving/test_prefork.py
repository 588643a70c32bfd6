"""An application that each process builds for itself, whichever process was forked from which."""

import subprocess
import sys

from support.source_tree import ROOT

START = """
import os, sys, threading, time
from authz_server.serving.prefork import PreforkApplication

def note(*words):
    name = "parent" if os.getpid() == PARENT else "child"
    os.write(1, " ".join((name, *map(str, words), "\\n")).encode())

PARENT, FAULTS = os.getpid(), []

class Plain:
    def __init__(self):
        note("builds")
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self.lock:
            start_response("200 OK", [])
            return [b"answer"]

def begin(plain):
    if FAULTS:
        raise FAULTS.pop()
    note("begins")

def made(idle_seconds=60.0):
    return PreforkApplication(
        Plain, begin=begin, hold=lambda plain: note("holds"), idle_seconds=idle_seconds
    )

def ask(application):
    statuses = []
    body = b"".join(application({}, lambda status, headers: statuses.append(status)))
    note("answers", statuses[0][:3], body.decode())

def in_child(act):
    child = os.fork()
    if child == 0:
        act()
        os._exit(0)
    os.waitpid(child, 0)
"""


def printed(script: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return [line.strip() for line in run.stdout.splitlines()]


def test_the_first_request_begins_the_work_and_the_second_does_not():
    script = "application = made()\nask(application)\nask(application)\n"
    answer = "parent answers 200 answer"
    assert printed(script) == ["parent builds", "parent begins", answer, answer]


def test_the_work_begins_without_a_request():
    script = "application = made(0.05)\ntime.sleep(1)\nnote('slept')\nask(application)\n"
    assert printed(script) == [
        "parent builds",
        "parent begins",
        "parent slept",
        "parent answers 200 answer",
    ]


def test_a_child_builds_and_begins_its_own_without_a_request_and_the_parent_does_not():
    script = """
application = made(0.2)
in_child(lambda: time.sleep(1))
note("waited")
"""
    assert printed(script) == ["parent builds", "child builds", "child begins", "parent waited"]


def test_a_child_answers_although_a_lock_was_held_at_the_fork():
    script = """
application = made()
application._application.lock.acquire()
application._lock.acquire()
in_child(lambda: ask(application))
"""
    assert printed(script)[-3:] == ["child builds", "child begins", "child answers 200 answer"]


def test_work_that_has_begun_is_held_before_a_fork_of_a_process_that_serves_nothing():
    script = """
application = made(0.05)
time.sleep(1)
in_child(lambda: ask(application))
"""
    assert printed(script) == [
        "parent builds",
        "parent begins",
        "parent holds",
        "child builds",
        "child begins",
        "child answers 200 answer",
    ]


def test_a_process_that_serves_keeps_its_work_and_its_child_begins_when_it_is_asked():
    script = """
application = made()
ask(application)
in_child(lambda: (time.sleep(0.5), note("slept"), ask(application)))
ask(application)
"""
    assert printed(script) == [
        "parent builds",
        "parent begins",
        "parent answers 200 answer",
        "child slept",
        "child builds",
        "child begins",
        "child answers 200 answer",
        "parent answers 200 answer",
    ]


def test_a_process_that_cannot_begin_answers_503_and_tries_again():
    script = """
application = made()
FAULTS.append(OSError("no space"))
ask(application)
ask(application)
"""
    assert printed(script) == [
        "parent builds",
        'parent answers 503 {"error":"temporarily_unavailable"}',
        "parent begins",
        "parent answers 200 answer",
    ]


def test_a_fault_of_the_background_is_left_to_the_next_request():
    script = """
application = made(0.05)
FAULTS.append(OSError("no space"))
time.sleep(0.5)
ask(application)
"""
    assert printed(script) == ["parent builds", "parent begins", "parent answers 200 answer"]


def test_a_fault_while_loading_is_the_server_s_to_report():
    script = """
def broken():
    raise ValueError("not usable")
try:
    PreforkApplication(broken, begin=begin, hold=print)
except ValueError as error:
    note(error)
"""
    assert printed(script) == ["parent not usable"]
