"""Drop new connections between the last accept and the close of a listening socket."""

import ctypes
import socket
import struct
from contextlib import suppress

#: Time for TCP handshakes in progress to complete.
HANDSHAKE_SECONDS = 0.05
_SO_ATTACH_FILTER = 26
# A program for the kernel's packet filter, on the TCP header. It drops packets with SYN and without
# ACK, the first packet of a connection.
_PROGRAM = b"".join(
    struct.pack("HBBI", *step)
    for step in (
        (0x30, 0, 0, 13),  # load the byte with the flags
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone: the next step, else the one after it
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # pass
    )
)
_STEP_BYTES = 8


def turn_new_ones_away(listener: socket.socket) -> None:
    """Make the kernel drop the first packet of each new connection, in every process.

    Without it, a connection that completes after the last ``accept`` is reset by the close, with
    a request on its way. A peer whose first packet is dropped sends it again after a second. By
    then the socket is closed and refuses the connection, or another process listens. On systems
    without such a filter this does nothing.
    """
    program = ctypes.create_string_buffer(_PROGRAM, len(_PROGRAM))
    steps = len(_PROGRAM) // _STEP_BYTES
    with suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("HL", steps, ctypes.addressof(program)),
        )
