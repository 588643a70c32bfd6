"""Sends a server the same request for some seconds by wrk: each connection waits for its answer."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

SCRIPT = Path(__file__).with_name("wrk.lua")
MISSING = "The benchmarks need wrk (apt install wrk)."


class UnexpectedAnswerError(Exception):
    """A server gave another answer than the expected one, so its numbers mean nothing."""


class Fresh(NamedTuple):
    """The parts of one request that no other may have."""

    fields: Mapping[str, str]
    proof: str = ""


@dataclass(frozen=True)
class Request:
    """A form to post, or a request without one.

    Attributes:
        path: where to.
        fields: the form.
        headers: beyond the content type.
        marker: what the body of every answer must hold.
        distinct: whether no answer may equal the one before it.
        text: what is sent instead of the form.
        fresh: makes the fields and the DPoP proof that are new for each request; None: all requests
            are the same.
        prepared: a file with requests that were made before the measurement.
        method: of the request.
    """

    path: str
    fields: Mapping[str, str]
    marker: str
    headers: Mapping[str, str] = field(default_factory=dict)
    distinct: bool = False
    text: str = ""
    fresh: Callable[[], Fresh] | None = None
    prepared: Path | None = None
    method: str = "POST"

    def body(self) -> str:
        """Return the form, or the text, as it is sent."""
        return self.text or urlencode(self.fields)

    def prepare(self, count: int, path: Path) -> "Request":
        """Return the request with a number of fresh ones in a file; itself if it needs none."""
        if self.fresh is None:
            return self
        with path.open("w", encoding="ascii") as file:
            for _ in range(count):
                one = self.fresh()
                file.write(f"{one.proof}\n{urlencode({**self.fields, **one.fields})}\n")
        return replace(self, prepared=path)

    def closing(self) -> "Request":
        """Return the same request for a connection that carries one request only."""
        return replace(self, headers={**self.headers, "Connection": "close"})


class Load(NamedTuple):
    """Answers, the time that each took, and the processor time of wrk itself."""

    requests: int
    seconds: float
    p50_microseconds: int
    p99_microseconds: int
    generator_seconds: float

    @property
    def requests_per_second(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds


def require_wrk() -> None:
    """Exit with the remedy when wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit(MISSING)


def send(port: int, request: Request, *, seconds: float, connections: int) -> Load:
    """Send ``request`` to a loopback port over as many connections, each kept alive if it can be.

    Raises:
        UnexpectedAnswerError: any answer but the expected one, or a broken connection.
    """
    spent_before = _seconds_of_children()
    # SQLite may keep a writer waiting for seconds: slow is not wrong.
    limits = [f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command = ["wrk", "-t1", *limits, "-s", str(SCRIPT)]
    run = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{request.path}"],
        env=os.environ | _environment(request),
        capture_output=True,
        text=True,
        check=True,
    )
    result = next(line for line in run.stdout.splitlines() if line.startswith("RESULT "))
    count, duration, p50, p99, errors, unexpected, *example = result.split(" ", 7)[1:]
    if not int(count):
        raise UnexpectedAnswerError(f"{request.path}: no answer within {seconds} s")
    if int(errors) or int(unexpected):
        raise UnexpectedAnswerError(
            f"{request.path}: {count} answers, {errors} connection errors, "
            f"{unexpected} unexpected, for example: {' '.join(example)}"
        )
    spent = _seconds_of_children() - spent_before
    return Load(int(count), int(duration) / 1_000_000, int(p50), int(p99), spent)


def _seconds_of_children() -> float:
    """Return the processor time of the programs that were started and waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _environment(request: Request) -> dict[str, str]:
    return {
        "BENCH_METHOD": request.method,
        "BENCH_BODY": request.body(),
        "BENCH_HEADERS": "".join(f"{name}: {value}\n" for name, value in request.headers.items()),
        "BENCH_MARKER": request.marker,
        "BENCH_DISTINCT": "1" if request.distinct else "0",
        "BENCH_REQUESTS": str(request.prepared or ""),
    }
