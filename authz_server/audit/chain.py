"""The hash chain of the records that one process writes to the audit log.

Each record names its writer, its number and the hash of the writer's record before it, so that a
record that is changed, removed or moved breaks the chain. Every process has a chain of its own,
since processes share a file without waiting for each other. Signed checkpoints name the heads.
"""

import hashlib
import secrets
from dataclasses import dataclass

#: The hash before a writer's first record.
NO_HASH = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The latest record of a writer.

    Attributes:
        writer: the writer's id.
        sequence: the record's number; 0: there is none.
        hash: the record's hash.
    """

    writer: str
    sequence: int
    hash: str


def hash_line(line: bytes) -> str:
    """Return the hash of a record: SHA-256 of its line without the line end, in hex."""
    return hashlib.sha256(line).hexdigest()


class RecordChain:
    """The chain of one process. Not thread-safe: the sink writes one record after another."""

    __slots__ = ("_previous", "_sequence", "_writer")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a chain with a new writer's id, as a forked process must."""
        self._writer = secrets.token_hex(8).encode()
        self._sequence = 0
        self._previous = NO_HASH.encode()

    @property
    def head(self) -> Head:
        """The latest record."""
        return Head(self._writer.decode(), self._sequence, self._previous.decode())

    def link(self, opening: bytes) -> bytes:
        """Return the line of the next record, which is not part of the chain yet.

        Args:
            opening: the record as a JSON object without its closing brace.
        """
        return b'%b,"chain":{"writer":"%b","sequence":%d,"previous":"%b"}}' % (
            opening,
            self._writer,
            self._sequence + 1,
            self._previous,
        )

    def append(self, line: bytes) -> None:
        """Make a written line the latest record."""
        self._sequence += 1
        self._previous = hash_line(line).encode()
