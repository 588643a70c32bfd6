"""The settings of the plugin."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from authz_server.plugin_api import Secret, report_fault, require_authorities

SIGNALS = ("traces", "metrics", "logs")
#: What a header may have (RFC 9110, 5.1 and 5.5); any other would fail at each export.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Options:
    """The settings.

    Attributes:
        endpoint: the address of the collector, without the path of a signal.
        signals: some of :data:`SIGNALS`.
        headers: headers for the collector.
        ca_file: a file of authorities; empty: those of the system.
        service_name: the name of this service.
        sample_ratio: the share of requests without a parent that are traced.
        timeout_seconds: the time limit of one export.
        interval_seconds: the time between two exports.
        queue_size: how many spans and log records may wait; further ones are dropped.
    """

    endpoint: str = "http://127.0.0.1:4318"
    signals: tuple[str, ...] = SIGNALS
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str = ""
    service_name: str = "authz-server"
    sample_ratio: float = 1.0
    timeout_seconds: int = 5
    interval_seconds: int = 5
    queue_size: int = 2_048


_LIMITS = {"timeout_seconds": (1, 60), "interval_seconds": (1, 300), "queue_size": (16, 65_536)}


def read_options(settings: Mapping[str, Any]) -> Options:
    """Return the options in the settings.

    Raises:
        ValueError: there is no such key, or a value cannot be used.
    """
    known = Options.__dataclass_fields__
    for key in settings:
        if key not in known:
            raise ValueError(f"there is no key {key!r}: there are {', '.join(known)}")
    values = dict(settings)
    for key, (lowest, highest) in _LIMITS.items():
        value = values.get(key, lowest)
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"{key}: use {lowest} to {highest}")
    ratio = values.get("sample_ratio", 1.0)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise ValueError("sample_ratio: use 0 to 1")
    for key in ("endpoint", "ca_file", "service_name"):
        if not isinstance(values.get(key, ""), str):
            raise ValueError(f"{key}: use a string")  # noqa: TRY004 - one error for every rule
    endpoint = values.get("endpoint", Options().endpoint)
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError("endpoint: use the address of a collector, such as https://otel.example")
    if not _is_address(endpoint):
        report_fault(f"endpoint: {endpoint} is not the address of a collector")
    require_authorities("ca_file", values.get("ca_file", ""))
    values["sample_ratio"] = float(ratio)
    values["signals"] = _read_signals(values.get("signals", list(SIGNALS)))
    values["headers"] = _read_headers(values.get("headers", {}))
    return Options(**values)


def _read_signals(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not set(value) <= set(SIGNALS):
        raise ValueError(f"signals: use some of {', '.join(SIGNALS)}")
    return tuple(value)


def _read_headers(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("headers: use a table of names and values")  # noqa: TRY004 - one error for every rule
    headers: dict[str, str] = {}
    for name, each in value.items():
        text = each.reveal().decode(errors="replace") if isinstance(each, Secret) else each
        if not isinstance(text, str) or not _VALUE.fullmatch(text):
            raise ValueError(f"headers.{name}: use visible ASCII characters, also in a secret")
        if not _NAME.fullmatch(name):
            raise ValueError(f"headers.{name}: it is not the name of a header")
        headers[name] = text
    return headers


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
