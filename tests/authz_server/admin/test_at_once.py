"""Many changes at the same time: none is lost, and none is answered with a fault."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.approval_site import request_act

pytestmark = pytest.mark.timeout(120)
MANY = 64
#: Each that is repeated until it counts is tried as often as there are others.
REPEATING = 24


def _at_once(act: Callable[[int], int], times: int = MANY) -> Counter[int]:
    """Call an act with each number on a thread; return how often each status was answered."""
    start = threading.Barrier(times)

    def run(number: int) -> int:
        start.wait()
        return act(number)

    with ThreadPoolExecutor(times) as threads:
        return Counter(threads.map(run, range(times)))


def test_creations_at_once_make_one_client_of_each_id(approvals):
    """Each id is asked for twice, half of them with a key that repeats the request."""
    api = approvals.api

    def create(number: int) -> int:
        name = f"at-once-{number // 2}"
        body = {"id": name, "name": name, "allowed_scopes": ["mapper/link"]}
        headers = {"Idempotency-Key": name} if number % 4 < 2 else {}
        return api.send("POST", "/clients", json=body, headers=headers).status_code

    api.token()
    statuses = _at_once(create)
    assert statuses.keys() <= {200, 201, 409}, statuses
    assert statuses[201] == MANY // 2
    found = api.get("/clients?q=at-once-&limit=500").json["items"]
    assert len(found) == MANY // 2


def test_edits_at_once_lose_nothing(approvals):
    """Of those with one tag, one is made; each that is repeated with the present tag counts."""
    api = approvals.api
    path = f"/clients/{api.new_client(id='edited-at-once')['id']}"
    tag = api.get(path).headers["ETag"]

    def edit(number: int) -> int:
        body = {"name": f"Name {number}"}
        return api.send("PATCH", path, json=body, headers={"If-Match": tag}).status_code

    assert _at_once(edit) == {200: 1, 412: MANY - 1}

    def add(number: int) -> int:
        while True:
            present = api.get(path)
            networks = present.json["properties"].get("allowed_networks", [])
            body = {"properties": {"allowed_networks": [*networks, f"192.0.2.{number}"]}}
            headers = {"If-Match": present.headers["ETag"]}
            status = api.send("PATCH", path, json=body, headers=headers).status_code
            if status != 412:
                return status

    assert _at_once(add, REPEATING) == {200: REPEATING}
    assert len(api.get(path).json["properties"]["allowed_networks"]) == REPEATING


def test_decisions_at_once_carry_a_change_out_once(approvals):
    """The others find it settled."""
    api = approvals.api
    client = api.new_client(id="decided-at-once")["id"]
    answer, path = request_act(approvals, "client.add_credential", f"/clients/{client}")
    change = answer.json["id"]
    tokens = [approvals.token_of(name) for name in ("second", "third")]

    def approve(number: int) -> int:
        return api.send(
            "POST",
            f"/changes/{change}/approve",
            token=tokens[number % 2],
            json={},
            headers={"If-Match": "*"},
        ).status_code

    assert _at_once(approve) == {200: 1, 409: MANY - 1}
    assert len(api.get(f"{path}/secrets").json["items"]) == 2
