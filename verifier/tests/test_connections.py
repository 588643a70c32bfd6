"""Connections: the time limit of connecting, and the proxies of the environment."""

import socket
import time

import httpx
import pytest

from authz_verifier.connections import new_client


def test_the_proxies_of_the_environment_are_used(issuer, monkeypatch):
    """But not for the hosts that it excepts."""
    monkeypatch.setenv("http_proxy", issuer.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with new_client(5, None) as client:
        assert client.get("http://auth.example/metadata").status_code == 404
        with pytest.raises(httpx.ConnectError):
            client.get("http://127.0.0.1:1/")


def test_a_redirect_is_not_followed(hostile):
    with new_client(5, None) as client:
        assert client.get(hostile("redirects")).status_code == 302


def test_the_addresses_of_a_host_share_the_time_limit(monkeypatch):
    """The first does not answer: its queue of connections is full."""
    resolve = socket.getaddrinfo
    waiting = [socket.socket() for _ in range(3)]
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full, new_client(2, None) as client:
        port = full.getsockname()[1]
        for each in waiting:
            each.settimeout(0)
            each.connect_ex(("127.0.0.2", port))

        def find(host, *rest, **options):
            hosts = ("127.0.0.2", "127.0.0.3") if host == "auth.example" else (host,)
            return [place for each in hosts for place in resolve(each, *rest, **options)]

        monkeypatch.setattr("socket.getaddrinfo", find)
        with socket.create_server(("127.0.0.3", port)):
            started = time.monotonic()
            with pytest.raises(httpx.ReadTimeout):
                client.get(f"http://auth.example:{port}/")
            assert 1.9 < time.monotonic() - started < 20
    for each in waiting:
        each.close()
