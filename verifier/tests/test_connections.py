"""Connections: the time limit of connecting, and the proxies of the environment."""

import socket

import httpcore
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


@pytest.mark.parametrize("label", ["", "a" * 64], ids=["empty", "long"])
def test_a_name_that_no_host_can_have_is_not_connected_to(label):
    with new_client(5, None) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://a.{label}.example/")


def test_an_exchange_without_a_time_limit_for_reads_has_none(issuer):
    with new_client(httpx.Timeout(60, read=None), None) as client:
        assert client.get(f"{issuer.url}/metadata").status_code == 404


def test_the_addresses_of_a_host_share_the_time_limit(issuer, monkeypatch):
    """The second is reached after a first that does not answer in its share."""
    resolve, connect = socket.getaddrinfo, httpcore.SyncBackend.connect_tcp
    silent, shares = "192.0.2.1", []

    def find(host, *rest, **options):
        hosts = (silent, "127.0.0.1") if host == "auth.example" else (host,)
        return [place for each in hosts for place in resolve(each, *rest, **options)]

    def connect_within(backend, host, port, seconds, *rest):
        shares.append((host, seconds))
        if host == silent:  # No real address is certain to be silent.
            raise httpcore.ConnectTimeout
        return connect(backend, host, port, seconds, *rest)

    monkeypatch.setattr("socket.getaddrinfo", find)
    monkeypatch.setattr("httpcore.SyncBackend.connect_tcp", connect_within)
    with new_client(100, None) as client:
        url = issuer.url.replace("127.0.0.1", "auth.example")
        assert client.get(f"{url}/metadata").status_code == 404
    (first, share), (second, rest) = shares
    assert [first, second] == [silent, "127.0.0.1"]
    assert share <= 50 < rest <= 100
