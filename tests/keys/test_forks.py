"""Resets and exit handlers in processes that are forked, with Python's hooks and without."""

import subprocess
import sys

import pytest

from support.source_tree import PACKAGES, ROOT, python_files

START = """
import ctypes, gc, os, sys
from keys.forks import at_exit, forget_at_exit, on_fork, run_resets

def note(text):
    os.write(1, f"{text}\\n".encode())

class Owner:
    def __init__(self, name):
        self.name = name
        on_fork(self.reset)

    def reset(self):
        note(f"reset {self.name}")

def in_child(fork, act):
    child = fork()
    if child == 0:
        act()
        os._exit(0)
    os.waitpid(child, 0)
"""


def printed(script: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", START + script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    return run.stdout.splitlines()


def test_a_child_runs_functions_then_methods_in_order_and_the_parent_runs_none():
    script = """
first = Owner("first")
on_fork(lambda: note("reset function"))
last = Owner("last")
in_child(os.fork, lambda: note("child"))
note("parent")
"""
    assert printed(script) == ["reset function", "reset first", "reset last", "child", "parent"]


def test_a_reset_does_not_keep_its_object():
    script = """
kept, dropped = Owner("kept"), Owner("dropped")
del dropped
gc.collect()
in_child(os.fork, lambda: None)
"""
    assert printed(script) == ["reset kept"]


def test_a_child_of_a_child_runs_the_resets_again():
    script = """
owner = Owner("one")
in_child(os.fork, lambda: in_child(os.fork, lambda: note("grandchild")))
"""
    assert printed(script) == ["reset one", "reset one", "grandchild"]


def test_a_fork_outside_python_runs_the_resets_once_when_they_are_asked_for():
    script = """
owner = Owner("one")
def act():
    note("child")
    run_resets()
    run_resets()
in_child(ctypes.PyDLL(None).fork, act)
run_resets()
"""
    assert printed(script) == ["child", "reset one"]


@pytest.mark.parametrize("end", ["parent", "child"])
def test_an_exit_handler_runs_in_its_own_process_alone(end):
    script = f"""
at_exit(lambda: note("end of the parent"))
child = os.fork()
if child == 0:
    at_exit(lambda: note("end of the child"))
    sys.exit()
os.waitpid(child, 0)
{"" if end == "parent" else "os._exit(0)"}
"""
    expected = ["end of the child", "end of the parent"]
    assert printed(script) == (expected if end == "parent" else expected[:1])


def test_an_exit_handler_that_is_taken_back_does_not_run_and_lets_its_owner_go():
    script = """
from weakref import ref
class Leaver:
    def leave(self):
        note("left")
first, second = Leaver(), Leaver()
at_exit(first.leave)
at_exit(second.leave)
forget_at_exit(first.leave)
former = ref(first)
del first
note(str(former()))
"""
    assert printed(script) == ["None", "left"]


def test_fork_hooks_are_registered_in_one_place():
    users = {
        str(path.relative_to(ROOT))
        for path in python_files(*PACKAGES)
        if "register_at_fork(after_in_child" in path.read_text(encoding="utf-8")
    }
    assert users == {"keys/forks.py"}
