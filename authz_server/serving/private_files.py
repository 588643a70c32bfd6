"""Files for private content: in memory where the system can, so that no disk keeps it."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

_DESCRIPTORS = Path("/proc/self/fd")


def open_private_file(content: bytes) -> IO[bytes]:
    """Return an open file without a name, with its position before this content.

    It is in memory on Linux, else among the temporary files.

    Raises:
        OSError: it cannot be made.
    """
    try:
        file: IO[bytes] = os.fdopen(os.memfd_create("private"), "w+b")
    except (AttributeError, OSError):
        # Another system or kernel, or a sandbox without this call.
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content)
    file.seek(0)
    return file


@contextmanager
def private_paths(contents: Sequence[bytes]) -> Iterator[list[str]]:
    """Yield the paths of files with these contents, for a library that opens files itself.

    Without ``/proc``, they are in a folder of this user alone.

    Raises:
        OSError: they cannot be made.
    """
    with ExitStack() as stack:
        if _DESCRIPTORS.is_dir():
            files = [stack.enter_context(open_private_file(content)) for content in contents]
            yield [str(_DESCRIPTORS / str(file.fileno())) for file in files]
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = [folder / str(number) for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        yield [str(path) for path in paths]
