"""The parts of the benchmark: what takes part in each, and how it is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import client_methods, contenders, peers
from bench.contenders import BARE_FLASK, BARE_WSGI, OURS, Setting, floor, open_contenders
from bench.free_cores import FreeCores
from bench.measurement import Measure, closed_loop, warm_up_compilers
from bench.peers import HYDRA, KEYCLOAK, NODE
from bench.rates import latency, overload
from bench.turns import Plan

Settings = Mapping[str, Setting]
_SQLITE, _POSTGRESQL = f"{OURS} on SQLite", f"{OURS} on PostgreSQL"
_CONNECTIONS = (8, 64, 512)


@dataclass(frozen=True)
class Group:
    """What is compared in one or more tables.

    Attributes:
        title: the work that is compared.
        settings: what takes part, by its name.
        measure: how.
    """

    title: str
    settings: Settings
    measure: Measure


_TOKEN_FLOORS: Settings = {
    BARE_WSGI: floor("bare_wsgi", "token"),
    BARE_FLASK: floor("bare_flask", "token"),
}
_INTROSPECTION_FLOORS: Settings = {
    BARE_WSGI: floor("bare_wsgi", "introspect"),
    BARE_FLASK: floor("bare_flask", "introspect"),
}
_OUR_TOKENS: Settings = {
    _SQLITE: contenders.our_tokens("SQLite"),
    _POSTGRESQL: contenders.our_tokens("PostgreSQL"),
}
_OUR_INTROSPECTION: Settings = {
    _SQLITE: contenders.our_introspection("SQLite"),
    _POSTGRESQL: contenders.our_introspection("PostgreSQL"),
}
_TOKEN_PEERS: Settings = {
    NODE: peers.node_tokens,
    KEYCLOAK: peers.keycloak_tokens,
    HYDRA: peers.hydra_tokens,
}
_INTROSPECTION_PEERS: Settings = {
    NODE: peers.node_introspection,
    KEYCLOAK: peers.keycloak_introspection,
    HYDRA: peers.hydra_introspection,
}
_PYTHON_TOKENS: Settings = {
    f"{BARE_FLASK}, default threads": floor("bare_flask", "token", threads=None),
    "Authlib, JWT": contenders.authlib_tokens("jwt"),
    "Authlib, stored": contenders.authlib_tokens("stored"),
    f"{BARE_FLASK}, gunicorn": contenders.bare_flask_under_gunicorn,
    "Authlib, JWT, gunicorn": contenders.authlib_tokens("jwt", gunicorn=True),
    "Authlib, stored, gunicorn": contenders.authlib_tokens("stored", gunicorn=True),
}

PARTS: Mapping[str, Sequence[Group]] = {
    "token": [
        Group(
            "A token by client credentials",
            {
                **_TOKEN_FLOORS,
                _SQLITE: contenders.our_tokens("SQLite", profile=True),
                _POSTGRESQL: contenders.our_tokens("PostgreSQL"),
                **_TOKEN_PEERS,
            },
            closed_loop(_CONNECTIONS),
        ),
        Group(
            "A token by client credentials, beside other ways in Python",
            {**_TOKEN_FLOORS, _SQLITE: contenders.our_tokens("SQLite"), **_PYTHON_TOKENS},
            closed_loop([8]),
        ),
    ],
    "introspection": [
        Group(
            "Introspection of an access token",
            {**_INTROSPECTION_FLOORS, **_OUR_INTROSPECTION, **_INTROSPECTION_PEERS},
            closed_loop(_CONNECTIONS),
        ),
        Group(
            "Introspection of an access token, beside Authlib as documented",
            {**_INTROSPECTION_FLOORS, "Authlib": contenders.authlib_introspection},
            closed_loop([8]),
        ),
    ],
    "connections": [
        Group(
            "A token, a new connection for each request",
            {**_TOKEN_FLOORS, **_OUR_TOKENS, **_TOKEN_PEERS},
            closed_loop([8, 64], new_connections=True),
        ),
    ],
    "workers": [
        Group(
            "A token, one worker process and two",
            {
                **_TOKEN_FLOORS,
                f"{BARE_FLASK}, 2": floor("bare_flask", "token", workers=2),
                _SQLITE: _OUR_TOKENS[_SQLITE],
                f"{_SQLITE}, 2": contenders.our_tokens("SQLite", workers=2),
                NODE: peers.node_tokens,
            },
            closed_loop([64]),
        ),
        *(
            Group(
                f"Introspection on {database}, one worker process and two",
                {
                    **_INTROSPECTION_FLOORS,
                    OURS: contenders.our_introspection(database),
                    f"{OURS}, 2": contenders.our_introspection(database, workers=2),
                    NODE: peers.node_introspection,
                },
                closed_loop([64]),
            )
            for database in ("SQLite", "PostgreSQL")
        ),
    ],
    "clients": [
        Group(
            "A token by each way to authenticate and to bind it",
            {
                _SQLITE: client_methods.our_clients("SQLite"),
                _POSTGRESQL: client_methods.our_clients("PostgreSQL"),
                NODE: client_methods.node_clients,
            },
            closed_loop([8, 64], kind="clients"),
        ),
    ],
    "latency": [
        Group(
            "Time to answer for a token",
            {**_TOKEN_FLOORS, **_OUR_TOKENS, NODE: peers.node_tokens},
            latency,
        ),
        Group(
            "Time to answer for an introspection",
            {**_INTROSPECTION_FLOORS, **_OUR_INTROSPECTION, NODE: peers.node_introspection},
            latency,
        ),
    ],
    "overload": [
        Group(
            "Tokens under overload",
            {BARE_FLASK: _TOKEN_FLOORS[BARE_FLASK], **_OUR_TOKENS, NODE: peers.node_tokens},
            overload,
        ),
        Group(
            "Introspection under overload",
            {BARE_FLASK: _INTROSPECTION_FLOORS[BARE_FLASK], **_OUR_INTROSPECTION},
            overload,
        ),
    ],
}


def measure_part(
    part: str, plan: Plan, cores: FreeCores, directory: Path, only: str
) -> list[dict[str, Any]]:
    """Measure one part; return its groups with their tables.

    Args:
        part: its name.
        plan: how much is measured.
        cores: waits for free ones and records busy ones.
        directory: for everything that is made.
        only: measure what has this in its name; empty: everything.
    """
    groups = []
    for number, group in enumerate(PARTS[part]):
        print(f" {group.title}:", flush=True)
        settings = {name: each for name, each in group.settings.items() if only in name}
        with open_contenders(settings, directory / str(number)) as (running, absent):
            warm_up_compilers(running, plan)
            tables = group.measure(running, plan, cores)
        groups.append({"title": group.title, "tables": tables, "not_measured": absent})
    return groups
