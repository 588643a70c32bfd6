"""HTTP requests of the demonstration, printed as curl commands."""

import base64
import http.client
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT_SECONDS = 10
#: Placeholder of the present time in a header; in the printed command the shell calls ``date``.
NOW = "$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT')"


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    Args:
        method: the HTTP method.
        url: the address.
        headers: in addition to those of curl.
        form: sent as application/x-www-form-urlencoded.
        json_body: sent as application/json.
        credentials: id and secret for HTTP Basic.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    json_body: Any = None
    credentials: tuple[str, str] | None = None

    def as_curl(self) -> str:
        """Return the request as a command for a POSIX shell, one option per line."""
        parts = ["curl -sS -i"]
        if self.method == "POST" and not self.form and self.json_body is None:
            parts.append("-X POST")
        parts += [f"-H {_quoted(f'{name}: {value}')}" for name, value in self.headers.items()]
        if self.credentials:
            parts.append(f"-u {shlex.quote(':'.join(self.credentials))}")
        parts += [
            f"--data-urlencode {shlex.quote(f'{name}={value}')}"
            for name, value in self.form.items()
        ]
        if self.json_body is not None:
            parts.append("-H 'Content-Type: application/json'")
            parts.append(f"-d {shlex.quote(json.dumps(self.json_body))}")
        parts.append(shlex.quote(self.url))
        return " \\\n    ".join(parts)

    def send(self) -> "Answer":
        """Send the request.

        Raises:
            OSError: the server does not answer.
        """
        url = urlsplit(self.url)
        connection = http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(self.method, url.path, self._body(), self._all_headers())
            answer = connection.getresponse()
            return Answer(answer.status, answer.reason, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _body(self) -> bytes | None:
        if self.json_body is not None:
            return json.dumps(self.json_body).encode()
        return urlencode(self.form).encode() if self.form else None

    def _all_headers(self) -> dict[str, str]:
        now = format_datetime(datetime.now(UTC), usegmt=True)
        headers = {name: value.replace(NOW, now) for name, value in self.headers.items()}
        headers["Accept"] = "*/*"
        if self.form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif self.json_body is not None:
            headers["Content-Type"] = "application/json"
        if self.credentials:
            encoded = base64.b64encode(":".join(self.credentials).encode()).decode()
            headers["Authorization"] = f"Basic {encoded}"
        return headers


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the JSON object in the body; empty if there is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def as_text(self) -> str:
        """Return the status line, some headers, and the body, indented if it is JSON."""
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        lines += [
            f"{name}: {value}"
            for name, value in self.headers.items()
            if name.lower() in {"www-authenticate", "content-type", "cache-control"}
        ]
        try:
            lines.append(json.dumps(json.loads(self.body), indent=2))
        except ValueError:
            lines.append(self.body.decode(errors="replace"))
        return "\n".join(line for line in lines if line)


def _quoted(header: str) -> str:
    """Quote a header for the shell, except the placeholder of the present time."""
    before, found, after = header.partition(NOW)
    return f'"{before}{NOW}{after}"' if found else shlex.quote(header)
