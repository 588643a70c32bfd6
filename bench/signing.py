"""Signatures by a Vault: our tokens against what the same OpenBao signs at its best.

OpenBao runs as it does in earnest, on raft storage with an audit file. Everything in this part
shares the machine's processors with it, so what counts is the ratio inside a round.
"""

import base64
import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import servers
from bench.contenders import token_request
from bench.cpu_time import used_seconds
from bench.load import Request, send
from bench.measurement import Plan
from bench.signing_servers import UNBATCHED, Vault, ours_in_vault, running_vault

_MICROSECONDS = 1_000_000
_BATCH = 100
_MANY = 32
#: Against whose signatures per second everything is held.
BEST = f"OpenBao alone, {_BATCH} signatures a call"


@dataclass(frozen=True)
class Signer:
    """One line of the table.

    Attributes:
        name: what it is.
        does: what a request makes it do, in a few words.
        port: where it answers.
        process_id: whose processor time is the client's; None: that of the load generator.
        connections: how many are open at once.
        request: makes the request anew for each round.
        signatures: how many one answer brings.
        vault_process_id: OpenBao's, if it takes part.
    """

    name: str
    does: str
    port: int
    process_id: int | None
    connections: int
    request: Callable[[], Request]
    signatures: int = 1
    vault_process_id: int | None = None


@dataclass(frozen=True)
class SigningRound:
    """One signer's part of one round; processor time is user and system, per signature."""

    signatures: int
    seconds: float
    signatures_per_second: float
    p50_microseconds: int
    p99_microseconds: int
    client_processor_microseconds: float
    vault_processor_microseconds: float | None


@contextmanager
def open_signers(directory: Path) -> Iterator[list[Signer]]:
    """Start OpenBao and every server; yield who takes part, the best first."""
    with ExitStack() as running:
        vault = running.enter_context(running_vault(directory / "vault"))
        yield [*_alone(vault), *_ours(running, vault, directory)]


def _alone(vault: Vault) -> Iterator[Signer]:
    for name, count, connections in (
        (BEST, _BATCH, 2),
        ("OpenBao alone, one signature a call", 1, _MANY),
        ("OpenBao alone, one signature a call", 1, 1),
    ):
        request = _signing_request(vault, count)
        does = "digests over kept connections, by wrk"
        yield Signer(
            name,
            does,
            vault.port,
            None,
            connections,
            lambda request=request: request,
            count,
            vault.process_id,
        )


def _signing_request(vault: Vault, count: int) -> Request:
    """Return what our server asks for, without our server."""
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(count)]
    inputs = [{"input": base64.b64encode(digest).decode()} for digest in digests]
    body = {
        "key_version": 1,
        "prehashed": True,
        "hash_algorithm": "sha2-256",
        "marshaling_algorithm": "jws",
    }
    body |= inputs[0] if count == 1 else {"batch_input": inputs}
    headers = {"Content-Type": "application/json", "X-Vault-Token": vault.token}
    marker = '"signature":"vault:v1:'
    text = json.dumps(body)
    return Request(f"/v1/{vault.signing_path}", {}, marker, headers, distinct=True, text=text)


def _ours(running: ExitStack, vault: Vault, directory: Path) -> Iterator[Signer]:
    def folder(name: str) -> Path:
        made = directory / name
        made.mkdir()
        return made

    def start(scheme: str, name: str, program: str = "authz_server") -> Any:  # noqa: ANN401
        return running.enter_context(ours_in_vault(vault, scheme, folder(name), program))

    local_folder = folder("local")
    url = f"sqlite:///{local_folder / 'database.sqlite'}"
    local = running.enter_context(servers.ours(url, local_folder))
    kv, transit = start("kv", "kv"), start("transit", "transit")
    unbatched = start("transit", "unbatched", UNBATCHED)
    for name, does, (server, parties), connections, is_remote in (
        ("authz-server, transit", "one call for what waits", transit, 1, True),
        ("authz-server, transit", "one call for what waits", transit, 8, True),
        ("authz-server, transit", "one call for what waits", transit, _MANY, True),
        ("authz-server, transit", "one call for what waits", transit, 2 * _MANY, True),
        ("authz-server, transit, batching off", "a call each", unbatched, _MANY, True),
        ("authz-server, KV", "signs in its process", kv, _MANY, False),
        ("authz-server, local", "signs in its process", local, _MANY, False),
    ):
        request = token_request(parties)
        yield Signer(
            name,
            f"a token, JWT ES256; {does}",
            server.port,
            server.process_id,
            connections,
            lambda request=request: request,
            vault_process_id=vault.process_id if is_remote else None,
        )


def measure_signers(signers: Sequence[Signer], plan: Plan) -> list[list[SigningRound]]:
    """Return the rounds of each signer, in an order that moves on from round to round.

    Raises:
        UnexpectedAnswerError: any request was answered otherwise than it should be.
    """
    for signer in signers:
        _send(signer, plan.warm_up_seconds)
    rounds: list[list[SigningRound]] = [[] for _ in signers]
    for number in range(plan.rounds):
        for place in range(len(signers)):
            index = (place + number) % len(signers)
            signer, measured = signers[index], _measure_once(signers[index], plan)
            rounds[index].append(measured)
            print(
                f"  round {number + 1}, {signer.name}, {signer.connections} connections: "
                f"{measured.signatures_per_second:,.0f} signatures/s, "
                f"{measured.client_processor_microseconds:.0f} µs, "
                f"OpenBao {measured.vault_processor_microseconds or 0:.0f} µs"
            )
    return rounds


def _measure_once(signer: Signer, plan: Plan) -> SigningRound:
    before = _used(signer)
    load = _send(signer, plan.seconds)
    # What was under way when wrk stopped is finished before the clock is read again.
    time.sleep(0.1)
    client, vault = (after - begun for after, begun in zip(_used(signer), before, strict=True))
    signatures = load.requests * signer.signatures
    return SigningRound(
        signatures=signatures,
        seconds=round(load.seconds, 3),
        signatures_per_second=round(signatures / load.seconds, 1),
        p50_microseconds=load.p50_microseconds,
        p99_microseconds=load.p99_microseconds,
        client_processor_microseconds=round(client * _MICROSECONDS / signatures, 1),
        vault_processor_microseconds=(
            round(vault * _MICROSECONDS / signatures, 1) if signer.vault_process_id else None
        ),
    )


def _send(signer: Signer, seconds: int) -> Any:  # noqa: ANN401 - a Load
    return send(signer.port, signer.request(), seconds=seconds, connections=signer.connections)


def _used(signer: Signer) -> tuple[float, float]:
    """Return the processor time that client and OpenBao have used, in seconds."""
    if signer.process_id is None:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        client = children.ru_utime + children.ru_stime
    else:
        client = used_seconds(signer.process_id)
    return client, used_seconds(signer.vault_process_id) if signer.vault_process_id else 0.0


def describe_signers(
    signers: Sequence[Signer], rounds: Sequence[Sequence[SigningRound]]
) -> list[dict[str, Any]]:
    """Return each signer with its rounds and their medians; the best is the first of all."""
    return [
        {
            "name": signer.name,
            "does": signer.does,
            "connections": signer.connections,
            "signatures_a_request": signer.signatures,
            "medians": _summarise(own, rounds[0]),
            "rounds": [asdict(one) for one in own],
        }
        for signer, own in zip(signers, rounds, strict=True)
    ]


def _summarise(rounds: Sequence[SigningRound], best: Sequence[SigningRound]) -> Mapping[str, float]:
    names = [name for name, value in asdict(rounds[0]).items() if value is not None]
    medians = {name: round(median(getattr(one, name) for one in rounds), 1) for name in names}
    shares = [
        one.signatures_per_second / base.signatures_per_second
        for one, base in zip(rounds, best, strict=True)
    ]
    summary = medians | {"share_of_best": round(median(shares), 3)}
    costs = [
        one.vault_processor_microseconds / base.vault_processor_microseconds
        for one, base in zip(rounds, best, strict=True)
        if one.vault_processor_microseconds and base.vault_processor_microseconds
    ]
    return summary | ({"vault_times_best": round(median(costs), 2)} if costs else {})
