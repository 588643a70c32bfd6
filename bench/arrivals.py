"""Open loop: requests that arrive at random moments with a given mean rate, by ``generator/``."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from bench.load import Request, UnexpectedAnswerError
from bench.servers import CACHE, require_programs, run_installer

_SOURCE = Path(__file__).with_name("generator")
_PROGRAM = CACHE / "generator"
#: The most connections that are open at once.
CONNECTIONS = 2_000
#: How many sender addresses they come from, as from many clients.
SOURCES = 50
#: How long a sender waits for an answer.
TIMEOUT_MILLISECONDS = 2_000
SERVED = 200
REFUSED = 503
GIVEN_UP = 0
NO_CONNECTION = -1
BROKEN = -2
_UNEXPECTED = -3
_SEED = 1
_DRAIN_SECONDS = 60


@dataclass(frozen=True)
class Phase:
    """A period with one mean rate, in requests per second."""

    rate: float
    seconds: float


class Arrival(NamedTuple):
    """One request; times in microseconds.

    Attributes:
        scheduled: when it was to be sent, since the start of its phase.
        lateness: how much later the generator sent it.
        took: from sending to the end of the answer.
        outcome: the status of the answer, or one of the constants of this module.
    """

    scheduled: int
    lateness: int
    took: int
    outcome: int


def build_generator() -> None:
    """Compile the generator.

    Raises:
        NotAtHandError: there is no Go, or it does not compile.
    """
    require_programs("go")
    CACHE.mkdir(parents=True, exist_ok=True)
    build = ["go", "build", "-buildvcs=false", "-o", str(_PROGRAM), "."]
    run_installer(build, _SOURCE, "the load generator does not compile")


def send_arrivals(port: int, request: Request, phases: Sequence[Phase]) -> list[list[Arrival]]:
    """Send ``request`` at the rates of the phases; return the arrivals of each phase.

    Raises:
        UnexpectedAnswerError: an answer other than the expected one or 503.
    """
    plan = {
        "port": port,
        "request": _as_sent(port, request),
        "marker": request.marker,
        "connections": CONNECTIONS,
        "sources": SOURCES,
        "timeout_milliseconds": TIMEOUT_MILLISECONDS,
        "seed": _SEED,
        "phases": [asdict(phase) for phase in phases],
    }
    run = subprocess.run(
        [str(_PROGRAM)],
        input=json.dumps(plan),
        # One processor for the generator: the other one is for the server.
        env=os.environ | {"GOMAXPROCS": "1", "GOGC": "400"},
        capture_output=True,
        text=True,
        check=True,
        timeout=sum(phase.seconds for phase in phases) + _DRAIN_SECONDS,
    )
    arrivals: list[list[Arrival]] = [[] for _ in phases]
    for line in run.stdout.splitlines():
        number, *fields = map(int, line.split(","))
        arrivals[number].append(Arrival(*fields))
    wrong = sum(each.outcome == _UNEXPECTED for one in arrivals for each in one)
    if wrong:
        raise UnexpectedAnswerError(
            f"{request.path}: {wrong} unexpected, for example: {run.stderr}"
        )
    return arrivals


def _as_sent(port: int, request: Request) -> str:
    body = request.body()
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": str(len(body)),
        **request.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {request.path} HTTP/1.1\r\n{lines}\r\n{body}"
