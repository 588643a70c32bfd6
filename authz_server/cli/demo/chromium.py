"""A headless Chromium with a passkey, driven over a pipe by the DevTools protocol."""

import fcntl
import json
import os
import shutil
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.05
#: Chromium reads commands from the first and writes to the second.
_COMMANDS, _ANSWERS = 3, 4
_AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


class BrowserError(Exception):
    """A page did not open, or not as expected."""


def find_chromium() -> str | None:
    """Return the path of the system's Chromium; None without one."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


@contextmanager
def headless_chromium(program: str) -> Iterator["Chromium"]:
    """Start a Chromium with an empty profile, yield it, and end it.

    Args:
        program: its path.

    Raises:
        OSError: it does not start.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            # The sandbox refuses to run as root.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "about:blank",
        ]
        process, commands, answers = _spawn(program, arguments)
        browser = Chromium(commands, answers)
        try:
            browser.begin()
            yield browser
        finally:
            with suppress(BrowserError):
                browser.close()
            os.close(commands)
            os.close(answers)
            os.waitpid(process, 0)


def _spawn(program: str, arguments: list[str]) -> tuple[int, int, int]:
    """Start the program; return its id, and the descriptors of its commands and its answers."""
    command_end, commands = _pipe()
    answers, answer_end = _pipe()
    null = os.open(os.devnull, os.O_RDWR)
    ends = (command_end, answer_end, null)
    wanted = ((null, 0), (null, 1), (null, 2), (command_end, _COMMANDS), (answer_end, _ANSWERS))
    try:
        process = os.posix_spawn(
            program,
            arguments,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, *pair) for pair in wanted],
        )
    finally:
        for each in ends:
            os.close(each)
    return process, commands, answers


def _pipe() -> tuple[int, int]:
    """Return both ends of a pipe, neither of which is a descriptor that Chromium uses."""
    made = []
    for end in os.pipe():
        made.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _ANSWERS + 1))
        os.close(end)
    return made[0], made[1]


class Chromium:
    """One page of a browser.

    Args:
        commands: the descriptor to write commands to.
        answers: the descriptor to read answers from.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None

    def begin(self) -> None:
        """Open a page, with an authenticator that holds passkeys."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call("WebAuthn.enable")
        self.call("WebAuthn.addVirtualAuthenticator", options=_AUTHENTICATOR)
        self.resize(1280, 900)

    def resize(self, width: int, height: int) -> None:
        """Change the size of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, url: str) -> None:
        """Open a page, and wait until it is loaded."""
        answer = self.call("Page.navigate", url=url)
        if answer.get("errorText"):
            raise BrowserError(f"{url}: {answer['errorText']}")
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def wait(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true.

        Raises:
            BrowserError: it does not become true.
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            if self.evaluate(condition) is True:
                return
            time.sleep(_POLL_SECONDS)
        shown = self.evaluate("document.body.innerText.slice(0, 300)")
        raise BrowserError(f"The page is not as expected: {condition}. It shows: {shown}")

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - any JSON
        """Return the value of an expression of JavaScript; None while there is no page."""
        try:
            answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        except BrowserError:
            return None
        return answer["result"].get("value")

    def save(self, path: Path) -> None:
        """Save a picture of the page as PNG."""
        shown = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(b64decode(shown["data"]))

    def close(self) -> None:
        """Have Chromium end."""
        self._session = None
        self.call("Browser.close")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
        """Return the result of a command of the protocol.

        Raises:
            BrowserError: Chromium refuses it, or has ended.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                break
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._commands, data) :]
            except OSError as error:
                raise BrowserError("Chromium has ended.") from error

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            received = os.read(self._answers, 65_536)
            if not received:
                raise BrowserError("Chromium has ended.")
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message
