"""Benchmarks: ``python -m bench`` runs all parts, ``python -m bench token`` one of them.

They need the tests' starters on the import path: ``make bench``, ``make bench ARGS=token``.
"""

import argparse
import resource
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.environment import load_average
from bench.free_cores import FreeCores
from bench.guarded import measure_guarded
from bench.introspection_forms import measure_introspection_forms
from bench.load import require_wrk
from bench.parts import PARTS, measure_part
from bench.report import FORMS, KEYS, RESULTS, STATUS, VERIFIER, make_result, write_result
from bench.servers import CACHE
from bench.signing import measure_signers, open_signers
from bench.status_lists import measure_status_lists
from bench.turns import Plan
from bench.verifiers import measure_verifiers


def main() -> None:
    """Run the parts that are asked for and write their results."""
    arguments = _parser().parse_args()
    require_wrk()
    _permit_many_connections()
    plan = Plan(
        arguments.rounds,
        arguments.seconds,
        arguments.warm_up_seconds,
        arguments.jit_warm_up_seconds,
    )
    is_trial = arguments.allow_busy or arguments.only
    results = arguments.results or (CACHE / "results" if is_trial else RESULTS)
    for part in arguments.parts or (*PARTS, STATUS, FORMS, VERIFIER, KEYS):
        print(f"{part}:", flush=True)
        cores = FreeCores(arguments.patience * 60, allow_busy=arguments.allow_busy)
        loads = [load_average()]
        with tempfile.TemporaryDirectory(prefix="authz-server-bench-") as directory:
            groups = _measure(part, plan, cores, Path(directory), arguments.only)
        loads.append(load_average())
        write_result(part, make_result(groups, plan, cores.objection(), loads), results)
    print((results / "README.md").read_text(encoding="utf-8"))


def _measure(
    part: str, plan: Plan, cores: FreeCores, directory: Path, only: str
) -> Sequence[Mapping[str, Any]]:
    if part == STATUS:
        return measure_status_lists(directory, plan)
    if part == FORMS:
        return measure_introspection_forms(directory, plan)
    if part == VERIFIER:
        alone = () if only else measure_verifiers(plan, cores)
        return [*alone, *measure_guarded(plan, cores, directory, only)]
    if part != KEYS:
        return measure_part(part, plan, cores, directory, only)
    with open_signers(directory) as signers:
        table = measure_signers(signers, plan, cores)
    return [{"title": "", "tables": [table], "not_measured": {}}]


def _permit_many_connections() -> None:
    """Raise the limit of open files to the highest that is allowed, for every server alike."""
    _, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measures the server.")
    parts = [*PARTS, STATUS, FORMS, VERIFIER, KEYS, []]
    parser.add_argument("parts", nargs="*", choices=parts, help="which; all if none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each round and contender")
    parser.add_argument("--warm-up-seconds", type=int, default=5)
    parser.add_argument("--jit-warm-up-seconds", type=int, default=60, help="of what runs on Java")
    parser.add_argument(
        "--patience", type=float, default=5, help="minutes that a part waits for free cores in all"
    )
    parser.add_argument(
        "--allow-busy", action="store_true", help="measure at once; a busy machine gives no ratios"
    )
    parser.add_argument(
        "--only", default="", help="measure what has this in its name; a trial, not a result"
    )
    parser.add_argument("--results", type=Path, help="the folder to write to")
    return parser


if __name__ == "__main__":
    main()
