"""Hosts and ports of the URLs that are fetched, and the origins that settings permit."""

import re
from ipaddress import ip_address

DEFAULT_PORTS = {"https": 443, "http": 80}
#: Lower ports, besides the scheme's, belong to services of other protocols.
LOWEST_FREE_PORT = 1_024
_HIGHEST_PORT = 65_535

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
#: The last label of a host that resolvers read as a number: 127.1, 0x7f000001, 2130706433.
_NUMBER = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)")
_ORIGIN = re.compile(r"https?://(?P<any>\*\.)?(?P<host>[a-z0-9_.-]+)(:(?P<port>[1-9][0-9]{3,4}))?")


def is_host(host: str) -> bool:
    """Return whether a text is a host in lower case: a name, or an IP address as usually written.

    Args:
        host: without brackets.
    """
    try:
        ip_address(host)
    except ValueError:
        return _is_name(host)
    return "%" not in host


def _is_name(host: str) -> bool:
    return _NAME.fullmatch(host) is not None and _NUMBER.fullmatch(host) is None


def is_origin(text: str) -> bool:
    """Return whether a URL that is fetched can have this origin: never with its default port.

    Args:
        text: with ``*.`` before a name for every name below it.
    """
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return False
    is_usual = _is_name if found["any"] else is_host
    port = int(found["port"] or LOWEST_FREE_PORT)
    return is_usual(found["host"]) and LOWEST_FREE_PORT <= port <= _HIGHEST_PORT
