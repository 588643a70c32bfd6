"""Our side of the verifiers: starts them, hands them tokens, listens to what they say."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from rotation_demo.ledger import Ledger
from rotation_demo.verifier import LIBRARIES
from support.tied_process import end_process

_ROOT = Path(__file__).parents[1]
_LAST_WORDS_SECONDS = 20


class VerifierProcess:
    """One verifier.

    Args:
        library: Which, of ``verifier.LIBRARIES``.
        arguments: Issuer, audience and the addresses of the JWKS.
        ledger: Is told what it says.
        log_path: Where its standard error goes.
    """

    def __init__(
        self, library: str, arguments: Sequence[str], ledger: Ledger, log_path: Path
    ) -> None:
        self.name = library
        self.fetches = 0
        #: Until when it accepted a probe, and when it refused it, by the key's id.
        self.accepted_until: dict[str, float] = {}
        self.refused_from: dict[str, float] = {}
        self._ledger = ledger
        self._lock = Lock()
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rotation_demo.verifier", library, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=_ROOT,
                env=os.environ | {"PYTHONPATH": str(_ROOT)},
                start_new_session=True,
            )
        self._listener = Thread(target=self._listen, name=f"hears {library}", daemon=True)
        self._listener.start()

    @property
    def process_id(self) -> int:
        """Its process id."""
        return self._process.pid

    def hand(self, token: str, kid: str, expires_at: float, *, probe: bool = False) -> None:
        """Have a token verified for as long as it lives."""
        said = {"token": token, "kid": kid, "expires_at": expires_at, "probe": probe}
        with self._lock:
            stdin = self._process.stdin
            if stdin is None:
                raise RuntimeError("a verifier has no input")
            stdin.write(json.dumps(said).encode() + b"\n")
            stdin.flush()

    def finish(self) -> None:
        """Hand it nothing more and wait until its last token has expired.

        Raises:
            RuntimeError: it has failed.
        """
        with self._lock:
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._process.wait(_LAST_WORDS_SECONDS):
            raise RuntimeError(f"the verifier with {self.name} failed")
        self._listener.join()

    def end(self) -> None:
        """End it whatever it does."""
        end_process(self._process)

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._hear(json.loads(line))

    def _hear(self, said: Mapping[str, Any]) -> None:
        if "checks" in said:
            self.fetches = said["fetches"]
            self._ledger.reported(self.name, said["checks"], said["finished"])
        elif "accepted" in said:
            self.accepted_until[said["accepted"]] = said["at"]
        elif said["probe"]:
            self.refused_from[said["refused"]] = said["at"]
        else:
            self._ledger.refused(
                self.name, said["refused"], said["number"], said["at"], said["why"]
            )


@contextmanager
def running_verifiers(
    issuer: str, audience: str, urls: Sequence[str], ledger: Ledger, directory: Path
) -> Iterator[tuple[VerifierProcess, ...]]:
    """Start one verifier with each library; each begins with another node."""
    with ExitStack() as stack:
        made = []
        for number, library in enumerate(LIBRARIES):
            arguments = [issuer, audience, *urls[number:], *urls[:number]]
            log_path = directory / f"verifier-{library}.log"
            verifier = VerifierProcess(library, arguments, ledger, log_path)
            stack.callback(verifier.end)
            made.append(verifier)
        yield tuple(made)
