"""Two nodes of the admin API on one database: of two requests at once, one at each, one wins."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from werkzeug.test import Client, TestResponse

from authz_server.admin.app import create_admin_app
from authz_server.app import EXTENSION
from support.admin_site import FROM, PREFIX, require_problem
from support.approval_site import MONEY, ApprovalSite, request_act

ROUNDS = 3


class Nodes:
    """The site, and the application of another node."""

    def __init__(self, approvals: ApprovalSite) -> None:
        self.approvals = approvals
        site = approvals.api
        self.apps = (site.app, create_admin_app(site.settings, clock=site.clock))

    def send(self, node: int, method: str, path: str, *, by: str = "caller", **options):
        """Send a request of a caller to a node."""
        headers = {"Authorization": f"Bearer {self._token(by)}", **options.pop("headers", {})}
        client = Client(self.apps[node])
        return client.open(
            f"{PREFIX}{path}", method=method, headers=headers, environ_base=FROM, **options
        )

    def at_once(self, *acts: Callable[[int], TestResponse]) -> list[TestResponse]:
        """Call each act with the number of its node, on a thread of its own; return the answers."""
        for by in ("caller", "second", "third"):
            self._token(by)
        start = threading.Barrier(len(acts))

        def run(node: int) -> TestResponse:
            start.wait()
            return acts[node](node)

        with ThreadPoolExecutor(len(acts)) as threads:
            return list(threads.map(run, range(len(acts))))

    def _token(self, by: str) -> str:
        return self.approvals.api.token() if by == "caller" else self.approvals.token_of(by)


@pytest.fixture(scope="module")
def nodes(approvals) -> Iterator[Nodes]:
    both = Nodes(approvals)
    yield both
    services = both.apps[1].extensions[EXTENSION]
    services.maintenance.stop()
    services.database.close()
    services.sink.close()


@pytest.mark.parametrize(("act", "by"), [("withdraw", "caller"), ("reject", "third")])
def test_of_an_approval_and_its_rival_at_another_node_one_wins(nodes, act, by):
    """The other one finds the change settled; the act is done if it was approved."""

    def decide(verb: str, decider: str) -> Callable[[int], TestResponse]:
        path = f"/changes/{change}/{verb}"
        headers = {"If-Match": "*"}
        return lambda node: nodes.send(node, "POST", path, by=decider, json={}, headers=headers)

    for number in range(ROUNDS):
        client = nodes.approvals.api.new_client(f"Raced {act} {number}")["id"]
        answer, path = request_act(nodes.approvals, "scope.grant_money", f"/clients/{client}")
        change = answer.json["id"]
        answers = nodes.at_once(decide("approve", "second"), decide(act, by))
        statuses = [each.status_code for each in answers]
        assert sorted(statuses) == [200, 409], statuses
        for node in (0, 1):
            state = nodes.send(node, "GET", f"/changes/{change}").json["state"]
            granted = MONEY in nodes.send(node, "GET", path).json["allowed_scopes"]
            assert granted == (state == "approved") == (statuses[0] == 200)


def test_of_two_editors_with_one_tag_at_two_nodes_one_is_refused(nodes):
    """The item has the change of the other one, at both nodes."""
    path = f"/clients/{nodes.approvals.api.new_client()['id']}"
    for number in range(ROUNDS):
        tags = [nodes.send(node, "GET", path).headers["ETag"] for node in (0, 1)]
        assert tags[0] == tags[1]

        def edit(node: int) -> TestResponse:
            body = {"name": f"Name {number} {node}"}  # noqa: B023 - called in this round
            return nodes.send(node, "PATCH", path, json=body, headers={"If-Match": tags[0]})  # noqa: B023

        answers = nodes.at_once(edit, edit)
        statuses = [each.status_code for each in answers]
        assert sorted(statuses) == [200, 412], statuses
        name = f"Name {number} {statuses.index(200)}"
        assert {nodes.send(node, "GET", path).json["name"] for node in (0, 1)} == {name}


def test_a_creation_that_is_repeated_at_another_node_makes_one_client(nodes):
    """At once, and afterwards."""
    body = {"id": "repeated-elsewhere", "name": "Repeated", "allowed_scopes": ["mapper/link"]}
    headers = {"Idempotency-Key": "at-two-nodes"}

    def create(node: int) -> TestResponse:
        return nodes.send(node, "POST", "/clients", json=body, headers=headers)

    statuses = sorted(each.status_code for each in nodes.at_once(create, create))
    assert statuses[0] in {200, 201}
    assert statuses[1] in {201, 409}
    assert statuses.count(201) == 1
    assert [create(node).status_code for node in (0, 1)] == [200, 200]


def test_two_applications_of_one_file_at_two_nodes_wait_for_each_other(nodes):
    """One of them adds everything, the other one finds it there."""
    entries = (
        f'[clients.applied-{number}]\nname = "X"\nallowed_scopes = ["mapper/link"]\n'
        for number in range(20)
    )
    body = {"files": [{"name": "a.toml", "text": "".join(entries)}]}

    def apply(node: int) -> TestResponse:
        return nodes.send(node, "POST", "/declaration", json=body)

    answers = nodes.at_once(apply, apply)
    assert [each.status_code for each in answers] == [200, 200], [each.text for each in answers]
    assert sorted(len(each.json["changes"]) for each in answers) == [0, 20]


def test_a_cursor_continues_at_another_node(nodes):
    """Its signature is that of every node; one that was altered is refused by both."""
    first = nodes.send(0, "GET", "/scopes?limit=2").json
    second = nodes.send(1, "GET", f"/scopes?limit=2&cursor={first['next']}")
    assert second.status_code == 200
    assert {each["name"] for each in first["items"]}.isdisjoint(
        each["name"] for each in second.json["items"]
    )
    altered = nodes.send(1, "GET", f"/scopes?limit=2&cursor={first['next'][:-2]}AA")
    require_problem(altered, 400, "invalid-cursor")
