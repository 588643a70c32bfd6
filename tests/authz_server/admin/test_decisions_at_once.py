"""Two decisions on a change at the same time: one is taken, the other one refused."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.approval_site import MONEY, ApprovalSite, request_act, running_approval_site


@pytest.fixture
def approvals(database_url: str, tmp_path):
    with running_approval_site(tmp_path, database_url) as site:
        yield site


@pytest.mark.parametrize("against", ["approve", "withdraw", "reject"])
def test_of_two_decisions_at_once_one_wins(approvals, against):
    """An approval, raced with another one, a withdrawal or a rejection."""
    for number in range(5):
        client = approvals.api.new_client(f"Raced {number}")["id"]
        answer, path = request_act(approvals, "scope.grant_money", f"/clients/{client}")
        change = answer.json["id"]
        rival = "caller" if against == "withdraw" else "third"
        statuses = _race(approvals, change, ("approve", "second"), (against, rival))
        assert sorted(statuses) == [200, 409], statuses
        granted = MONEY in approvals.api.get(path).json["allowed_scopes"]
        assert granted == (approvals.state(change) == "approved")
        assert granted or statuses[0] == 409


def _race(approvals: ApprovalSite, change: str, *decisions: tuple[str, str]) -> list[int]:
    """Decide on a change on one thread for each decision; return the statuses."""
    start = threading.Barrier(len(decisions))

    def decide(act: str, token: str) -> int:
        start.wait()
        headers = {"If-Match": "*"}
        path = f"/changes/{change}/{act}"
        answer = approvals.api.send("POST", path, token=token, json={}, headers=headers)
        return answer.status_code

    with ThreadPoolExecutor(len(decisions)) as threads:
        futures = [threads.submit(decide, act, approvals.token_of(by)) for act, by in decisions]
        return [each.result() for each in futures]
