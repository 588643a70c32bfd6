"""Requests for status lists (draft-ietf-oauth-status-list, 8)."""

import gzip
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

import pytest

from authz_server.tokens.status_lists import publication
from support.parties import ACTOR
from support.protocol import Protocol, running_protocol
from support.status_lists import entry_of
from support.wsgi import RawRequest, call


@pytest.fixture
def protocol(sqlite_url, tmp_path) -> Iterator[Protocol]:
    with running_protocol(tmp_path, sqlite_url) as running:
        with running.parties.change() as (services, session):
            services.clients.update_resource_server(
                session, "mapper", actor=ACTOR, properties={"status_list": True}
            )
        yield running


def test_a_list_is_compressed_for_those_who_accept_it(protocol: Protocol):
    """8.2; a cache keeps both forms apart."""
    path = f"/status-lists/{entry_of(protocol.new_token()).list_id}"
    plain = protocol.get(path)
    packed = protocol.get(path, Accept_Encoding="gzip, deflate")
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.content_type == "application/statuslist+jwt"
    assert packed.headers["ETag"] != plain.headers["ETag"]
    for answer in (plain, packed):
        assert answer.headers["Vary"] == "Accept-Encoding"
        encoding = answer.headers.get("Content-Encoding", "identity")
        etag = answer.headers["ETag"]
        again = protocol.get(path, Accept_Encoding=encoding, If_None_Match=etag)
        assert (again.status_code, again.data) == (304, b"")
    for refused in ("identity", "gzip;q=0", "br", "gzip;q=0.1, identity"):
        answer = protocol.get(path, Accept_Encoding=refused)
        assert (answer.data, answer.headers.get("Content-Encoding")) == (plain.data, None)


def test_a_list_is_compressed_once_and_forgotten_with_its_version(protocol: Protocol):
    token = protocol.new_token()
    path = f"/status-lists/{entry_of(token).list_id}"
    found = protocol.services.status_lists.find(entry_of(token).list_id)
    with ThreadPoolExecutor(4) as pool:
        packing = [pool.submit(found.pack) for _ in range(8)]
    forms = [each.result() for each in packing]
    assert all(each is forms[0] for each in forms)
    assert protocol.get(path, Accept_Encoding="gzip").data == forms[0]
    former = ref(found)
    del found, packing
    protocol.ask("revoke", protocol.demo.basic, token=token)
    assert protocol.get(path, Accept_Encoding="gzip").data != forms[0]
    assert former() is None


def test_what_is_no_list_is_404_and_what_is_over_501(protocol: Protocol):
    """8.4: lists of earlier times are not kept; nothing but GET and HEAD is allowed."""
    list_id = entry_of(protocol.new_token()).list_id
    for name in ("0", "999999999", "-1", "1e3", "abc", "9" * 30, f"0{list_id}", "%31", "¹"):
        assert protocol.get(f"/status-lists/{name}").status_code == 404
    assert protocol.get(f"/status-lists/{list_id}?time=1686925000").status_code == 501
    for query, status in (("a=\xff", 200), ("time=\xff", 501)):
        request = RawRequest("GET", f"/status-lists/{list_id}", query, {"Host": "a"})
        assert call(protocol.app, request).status == status
    for method in ("POST", "PUT", "DELETE"):
        assert protocol.send(method, f"/status-lists/{list_id}").status_code == 405
    assert protocol.send("HEAD", f"/status-lists/{list_id}").status_code == 200


def test_a_list_that_is_being_made_keeps_no_other_from_the_database(
    protocol: Protocol, monkeypatch
):
    """As many requests as `serve` has threads for wait for one list, and are answered with it."""
    list_id = entry_of(protocol.new_token()).list_id
    started, goes_on = threading.Event(), threading.Event()
    encode = publication.encode_list

    def encode_slowly(*given):
        started.set()
        assert goes_on.wait(60)
        return encode(*given)

    monkeypatch.setattr(publication, "encode_list", encode_slowly)
    with ThreadPoolExecutor(12) as pool:
        asked = RawRequest("GET", f"/status-lists/{list_id}", headers={"Host": "authz.example"})
        asking = [pool.submit(call, protocol.app, asked) for _ in range(12)]
        try:
            assert started.wait(60)
            time.sleep(0.2)
            assert protocol.get("/status-lists").status_code == 200
            assert protocol.get(f"/status-lists/{list_id + 1}").status_code == 404
        finally:
            goes_on.set()
        assert [each.result().status for each in asking] == [200] * 12


def test_requests_for_lists_wait_while_others_ask_the_database(protocol: Protocol, monkeypatch):
    """As long as the settings let a request wait for the database."""
    listed = entry_of(protocol.new_token()).list_id
    both_ask, goes_on = threading.Barrier(3), threading.Event()
    reading = protocol.services.database.reading

    def read_slowly():
        if threading.current_thread().name.startswith("slow"):
            both_ask.wait(60)
            assert goes_on.wait(60)
        return reading()

    monkeypatch.setattr(protocol.services.database, "reading", read_slowly)
    with ThreadPoolExecutor(2, "slow") as slow, ThreadPoolExecutor(1) as pool:
        all_lists = RawRequest("GET", "/status-lists", headers={"Host": "authz.example"})
        asking = [slow.submit(call, protocol.app, all_lists) for _ in range(2)]
        both_ask.wait(60)
        one = RawRequest("GET", f"/status-lists/{listed}", headers={"Host": "authz.example"})
        asking.append(pool.submit(call, protocol.app, one))
        time.sleep(1.5)
        goes_on.set()
        assert [each.result().status for each in asking] == [200] * 3
