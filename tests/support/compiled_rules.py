"""What Werkzeug compiles of the rules of routes, kept for all applications of a process.

Nearly every test has an application of its own. For each rule of each, Werkzeug compiles two
functions that build URLs: for an admin API, a third of the time that it takes to make it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.routing import Rule


@pytest.fixture(scope="session", autouse=True)
def _compiled_rules() -> Iterator[None]:
    """Compile the functions of equal rules once; one with defaults holds their values."""
    known: dict[tuple, Callable[..., Any]] = {}
    compile_builder = Rule._compile_builder  # noqa: SLF001 - it has no public name

    def compile_once(rule: Rule, append_unknown: bool = True) -> Callable[..., Any]:  # noqa: FBT001, FBT002 - Werkzeug's
        if rule.defaults:
            return compile_builder(rule, append_unknown)
        # What it compiles is made of these alone; the converters are found by the rule itself.
        key = (rule.rule, append_unknown, *rule._trace)  # noqa: SLF001 - likewise
        if key not in known:
            known[key] = compile_builder(rule, append_unknown)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "_compile_builder", compile_once)
        yield
