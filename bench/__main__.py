"""Benchmarks: ``python -m bench`` runs all parts, ``python -m bench token`` one of them.

They need the tests' starters on the import path: ``make bench``, ``make bench ARGS=token``.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench.contenders import PARTS, open_contenders
from bench.environment import load_average
from bench.load import require_wrk
from bench.measurement import Plan, measure
from bench.report import KEYS, RESULTS, frame_result, make_result, write_result
from bench.signing import describe_signers, measure_signers, open_signers


def main() -> None:
    """Run the parts that are asked for and write their results."""
    arguments = _parser().parse_args()
    require_wrk()
    plan = Plan(
        arguments.rounds, arguments.seconds, arguments.warm_up_seconds, arguments.connections
    )
    for part in arguments.parts or (*PARTS, KEYS):
        print(f"{part}:")
        with tempfile.TemporaryDirectory(prefix="authz-server-bench-") as directory:
            _run(part, plan, Path(directory), arguments.results)
    print((arguments.results / "README.md").read_text(encoding="utf-8"))


def _run(part: str, plan: Plan, directory: Path, results: Path) -> None:
    if part == KEYS:
        write_result(part, _run_signers(plan, directory), results)
        return
    with open_contenders(part, directory) as (contenders, absent):
        load_averages = [load_average()]
        rounds = measure(contenders, plan)
        load_averages.append(load_average())
        result = make_result(contenders, rounds, absent, plan, load_averages)
    write_result(part, result, results)


def _run_signers(plan: Plan, directory: Path) -> dict[str, Any]:
    with open_signers(directory) as signers:
        load_averages = [load_average()]
        rounds = measure_signers(signers, plan)
        load_averages.append(load_average())
    return frame_result(describe_signers(signers, rounds), {}, plan, load_averages)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description="Measures the server.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, KEYS, []], help="which; all if none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each round and contender")
    parser.add_argument("--warm-up-seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    return parser


if __name__ == "__main__":
    main()
