"""The checkout as the rules see it: its packages, its Python files, its tracked text."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("authz_server", "keys", "plugins")


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return every file under version control, and every new one that is not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def texts() -> Iterator[tuple[Path, str]]:
    """Yield each tracked text file, its path relative to the checkout, with its content."""
    for path in tracked_files():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def python_files(*folders: str) -> list[Path]:
    """Return the tracked Python files below the given folders, all of them if none is given."""
    files = (path for path in tracked_files() if path.suffix == ".py")
    return [p for p in files if not folders or p.relative_to(ROOT).parts[0] in folders]


def syntax_tree(path: Path) -> ast.Module:
    """Return the parsed module; the caller keeps it: all of them slow each garbage collection."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return the absolute names that a file imports, `from x import y` as both x and x.y."""
    names: set[str] = set()
    for node in _statements(syntax_tree(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements below a node, without the expressions in them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from _statements(child)
