"""Signatures by a Vault: our tokens against what the same OpenBao signs at its best.

OpenBao runs as it does in earnest, on raft storage with an audit file. Everything in this part
shares the machine's processors with it, so what counts is the ratio inside a round.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench import servers
from bench.contenders import token_request
from bench.free_cores import FreeCores
from bench.load import Load, Request, send
from bench.measurement import Table, medians
from bench.registered import Registered
from bench.servers import Server
from bench.signing_servers import UNBATCHED, Vault, ours_in_vault, running_vault
from bench.turns import Plan, Taken, Turn, take_rounds

_MICROSECONDS = 1_000_000
_BATCH = 100
_MANY = 32
#: Everything is compared with the signatures per second of this one.
BEST = f"OpenBao alone, {_BATCH} signatures a call"


@dataclass(frozen=True)
class Signer:
    """One line of the table.

    Attributes:
        name: unique together with the number of connections.
        does: the work of one request, in a few words.
        port: where it answers.
        process_id: the client, whose processor time is counted; None: the load generator.
        connections: how many are open at once.
        request: what is sent.
        signatures: how many one answer brings.
        vault_process_id: OpenBao's, if it takes part.
    """

    name: str
    does: str
    port: int
    process_id: int | None
    connections: int
    request: Request
    signatures: int = 1
    vault_process_id: int | None = None


@dataclass(frozen=True)
class SigningRound:
    """One signer's turn in one round; processor time is user and system, per signature."""

    signatures: int
    seconds: float
    signatures_per_second: float
    p50_microseconds: int
    p99_microseconds: int
    client_processor_microseconds: float
    vault_processor_microseconds: float | None
    others_cores: float


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
            request,
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

    def start(scheme: str, name: str, *first_on_path: Path) -> tuple[Server, Registered]:
        serving = ours_in_vault(vault, scheme, folder(name), *first_on_path)
        return running.enter_context(serving)

    local_folder = folder("local")
    url = f"sqlite:///{local_folder / 'database.sqlite'}"
    local = running.enter_context(servers.ours(url, local_folder))
    kv, transit = start("kv", "kv"), start("transit", "transit")
    unbatched = start("transit", "unbatched", UNBATCHED)
    for name, does, (server, registered), connections, is_remote in (
        ("authz-server, transit", "one call for what waits", transit, 1, True),
        ("authz-server, transit", "one call for what waits", transit, 8, True),
        ("authz-server, transit", "one call for what waits", transit, _MANY, True),
        ("authz-server, transit", "one call for what waits", transit, 2 * _MANY, True),
        ("authz-server, transit, batching off", "a call each", unbatched, _MANY, True),
        ("authz-server, KV", "signs in its process", kv, _MANY, False),
        ("authz-server, local", "signs in its process", local, _MANY, False),
    ):
        request = token_request(registered)
        yield Signer(
            name,
            f"a token, JWT ES256; {does}",
            server.port,
            server.process_id,
            connections,
            request,
            vault_process_id=vault.process_id if is_remote else None,
        )


def measure_signers(signers: Sequence[Signer], plan: Plan, cores: FreeCores) -> Table:
    """Return the table of all signers; the best is the first of them."""
    turns = [_turn(signer, plan) for signer in signers]
    result = take_rounds(turns, plan.rounds, cores)
    rounds = {
        name: [_round(signer, taken) for taken in result.taken[name]]
        for signer, name in ((each, turn.name) for each, turn in zip(signers, turns, strict=True))
        if name in result.taken
    }
    best = rounds.get(turns[0].name, [])
    rows = [
        {
            "name": signer.name,
            "does": signer.does,
            "connections": signer.connections,
            "signatures_a_request": signer.signatures,
            "medians": medians(rounds[turn.name]),
            "ratios": _ratios(rounds[turn.name], best),
            "rounds": [asdict(one) for one in rounds[turn.name]],
        }
        for signer, turn in zip(signers, turns, strict=True)
        if turn.name in rounds
    ]
    return {"kind": "keys", "title": "", "rows": rows, "stopped": dict(result.stopped)}


def _turn(signer: Signer, plan: Plan) -> Turn[Load]:
    def run(seconds: int) -> Load:
        connections = signer.connections
        return send(signer.port, signer.request, seconds=seconds, connections=connections)

    return Turn(
        f"{signer.name}, {signer.connections} connections",
        [each for each in (signer.process_id, signer.vault_process_id) if each is not None],
        lambda: run(plan.warm_up_seconds),
        lambda: run(plan.seconds),
    )


def _round(signer: Signer, taken: Taken[Load]) -> SigningRound:
    load, vault = taken.value, signer.vault_process_id
    signatures = load.requests * signer.signatures
    if signer.process_id is None:
        client = round(load.generator_seconds * _MICROSECONDS / signatures, 1)
    else:
        client = taken.processor_microseconds(signer.process_id, signatures)
    return SigningRound(
        signatures=signatures,
        seconds=round(load.seconds, 3),
        signatures_per_second=round(signatures / load.seconds, 1),
        p50_microseconds=load.p50_microseconds,
        p99_microseconds=load.p99_microseconds,
        client_processor_microseconds=client,
        vault_processor_microseconds=(
            None if vault is None else taken.processor_microseconds(vault, signatures)
        ),
        others_cores=taken.others_cores,
    )


def _ratios(own: Sequence[SigningRound], best: Sequence[SigningRound]) -> Mapping[str, float]:
    if not best:
        return {}
    pairs = list(zip(own, best, strict=True))
    shares = [one.signatures_per_second / base.signatures_per_second for one, base in pairs]
    costs = [
        one.vault_processor_microseconds / base.vault_processor_microseconds
        for one, base in pairs
        if one.vault_processor_microseconds and base.vault_processor_microseconds
    ]
    ratios = {"share_of_best": round(median(shares), 3)}
    return ratios | ({"vault_times_best": round(median(costs), 2)} if costs else {})
