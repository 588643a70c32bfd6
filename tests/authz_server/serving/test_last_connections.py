"""A listening socket that is about to close: who waits is accepted, who comes now is not."""

import socket

import pytest

from authz_server.serving.last_connections import turn_new_ones_away


def test_new_connections_wait_and_those_that_are_there_live_on():
    """Case J116."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with (
            socket.create_connection(address) as accepted,
            socket.create_connection(address) as kept,
        ):
            served, _ = listener.accept()
            turn_new_ones_away(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.5)
            waiting, _ = listener.accept()
            for near, far in ((accepted, served), (kept, waiting)):
                near.settimeout(5)
                near.sendall(b"request")
                assert far.recv(10) == b"request"
                far.sendall(b"answer")
                assert near.recv(10) == b"answer"
                far.close()
            listener.settimeout(0.1)
            with pytest.raises(TimeoutError):
                listener.accept()
