"""The shape of the source: contracts, sizes, names, and what no file may hold."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.source_tree import PACKAGES, ROOT, imports_of, python_files, syntax_tree, texts

LONGEST_FILE = 400
LONG_FUNCTION = 30
# Words that hide what a module does; the plugin manager is the field's own name for the thing.
EMPTY_WORDS = re.compile(r"(^|_)(helper|util|manager|processor)s?($|_)")
NAMED_SO_BY_THE_FIELD = {"plugin_manager", "test_plugin_manager"}

# Written in pieces, so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:home|root|Users|" + r"work)/[\w.]")
REGISTRY = re.compile(
    "|".join(
        (
            "py" + r"pi\.org",
            "pythonhosted" + r"\.org",
            "npm" + r"js\.",
            "--(?:extra-)?" + "index-url",
        )
    )
)
UNFINISHED = re.compile(
    "|".join((r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", "NotImplemented" + "Error"))
)
WORK_TALK = re.compile(r"\bissue\s+#?" + r"\d+\b", re.IGNORECASE)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(syntax_tree(path))
    return [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines the statements take, the docstring aside."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_import_contracts_are_kept():
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "verifier" / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_picture_of_the_rooms_is_drawn_from_the_code():
    """`make rooms` renews it."""
    run = subprocess.run(
        [sys.executable, ROOT / "tests" / "project" / "draw_rooms.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == (ROOT / "docs" / "rooms.svg").read_text(encoding="utf-8")


def test_at_most_twelve_modules_and_sixteen_rooms_stand_at_the_top():
    top = ROOT / "authz_server"
    assert len(list(top.glob("*.py"))) <= 12
    assert len([path for path in top.iterdir() if (path / "__init__.py").exists()]) <= 16


def test_only_published_parts_of_authlib_are_used():
    """Signing goes through the key ring: Authlib's own JOSE modules stay out of the way."""
    users = {
        relative(path)
        for path in python_files(*PACKAGES)
        if any(name.startswith("authlib.jose") for name in imports_of(path))
    }
    assert users == set()


def test_plugins_import_the_plugin_interface_and_what_a_stranger_s_would():
    allowed = sys.stdlib_module_names | {"plugins", "authz_server"}
    strangers = {
        (path.relative_to(ROOT / "plugins").parts[0], name.partition(".")[0])
        for path in python_files("plugins")
        for name in imports_of(path)
        if name.partition(".")[0] not in allowed
    }
    # A command is a command of click; an extra installs what only this plugin needs.
    expected = {("policy", "click"), ("webhooks", "click")}
    expected |= {("opentelemetry", "opentelemetry"), ("opentelemetry", "requests")}
    assert strangers == expected


def test_files_are_short():
    long = {
        relative(path): lines
        for path in python_files()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    }
    assert long == {}


def test_nine_functions_in_ten_are_short():
    lengths = [length(f) for path in python_files(*PACKAGES) for f in functions_of(path)]
    short = [lines for lines in lengths if lines < LONG_FUNCTION]
    assert len(short) >= 0.9 * len(lengths)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_its_purpose_in_one_sentence(package):
    silent = []
    for path in python_files(package):
        if path.name == "__init__.py":
            first_paragraph = (ast.get_docstring(syntax_tree(path)) or "").split("\n\n")[0]
            if not re.fullmatch(r"[^.]+(\.\w[^.]*)*\.", " ".join(first_paragraph.split())):
                silent.append(relative(path))
    assert silent == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_a_package_is_a_package(package):
    folders = {path.parent for path in python_files(package) if "migrations" not in path.parts}
    assert {relative(f) for f in folders if not (f / "__init__.py").exists()} == set()


def test_there_is_no_package_below_tests():
    assert [relative(p) for p in python_files("tests") if p.name == "__init__.py"] == []


def test_modules_are_named_for_what_they_do():
    empty = {
        relative(path)
        for path in python_files()
        if EMPTY_WORDS.search(path.stem) and path.stem not in NAMED_SO_BY_THE_FIELD
    }
    assert empty == set()


@pytest.mark.parametrize(
    "forbidden",
    [MACHINE_PATH, REGISTRY, UNFINISHED, WORK_TALK],
    ids=["path", "registry", "unfinished", "talk"],
)
def test_no_tracked_file_holds(forbidden):
    found = {
        f"{path}: {match.group()}"
        for path, text in texts()
        if path.name != "LICENSE"
        for match in forbidden.finditer(text)
    }
    assert found == set()


def test_no_source_is_silenced_without_a_reason():
    """A suppression names its rule and says why on the same or the line above."""
    bare = re.compile(r"#\s*(?:noqa(?!:)|type:\s*ignore(?!\[))")
    silenced = {
        f"{relative(path)}:{number}"
        for path in python_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if bare.search(line)
    }
    assert silenced == set()
