"""A network path that a test can cut, silence and heal: a TCP proxy on loopback."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from support.ports import release_port, reserve_port

_CHUNK_BYTES = 65_536


class TcpProxy:
    """A context manager carrying bytes between `port` and `target_port` of 127.0.0.1.

    `silence()` swallows everything in both directions without closing anything, like a cut cable;
    `refuse()` resets what exists and takes nothing new; `heal()` ends either. What was swallowed
    stays lost: connections that lived through a silence are reset when it ends.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = reserve_port()
        self.bytes_to_target = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._silent = self._refusing = False

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._carry, "127.0.0.1", self.port), self._loop
        ).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        release_port(self.port)

    def silence(self) -> None:
        """Let no byte through in either direction, and say nothing about it."""
        self._silent = True

    def refuse(self) -> None:
        """Reset all connections, and every new one at once."""
        self._refusing = True
        self._call(self._reset_all)

    def heal(self) -> None:
        """Carry new connections again; those that lost bytes are reset."""
        lost = self._silent
        self._silent = self._refusing = False
        if lost:
            self._call(self._reset_all)

    def _call(self, function: Callable[[], None]) -> None:
        async def run() -> None:
            function()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _shut_down(self) -> None:
        self._server.close()
        self._reset_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        try:
            onward = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _reset(writer)
            return
        ends = {writer, onward[1]}
        self._writers |= ends
        await asyncio.gather(
            self._pump(reader, onward[1], counted=True), self._pump(onward[0], writer)
        )
        self._writers -= ends
        for each in ends:
            # Both sides have ended; one that did so during a silence is still open here.
            each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if counted:
                    self.bytes_to_target += len(data)
                if not self._silent:
                    writer.write(data)
                    await writer.drain()
        if not self._silent:
            _reset(writer) if self._refusing else writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an orderly end, unless it is closed already."""
    at_once = struct.pack("ii", 1, 0)
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    writer.transport.abort()
