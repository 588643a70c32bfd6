"""What belongs to a whole test run: its directory, shared by the worker processes, and its end."""

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.shared_postgresql import await_end

RUN_DIRECTORY = pytest.StashKey[Path]()
_ENDED = pytest.StashKey[int]()
_WORKER_INPUT = "authz_server_run_directory"
#: Garbage collections are seldom, as everything is collected at the end of each file.
_THRESHOLDS = (5_000, 10, 10)
#: What outlives so many files of tests is left out of later collections.
_FILES = 8


def pytest_configure(config: pytest.Config) -> None:
    """Make the directory in the process that began the run; the workers are told where it is."""
    worker_input = getattr(config, "workerinput", None)
    if worker_input is None:
        config.stash[RUN_DIRECTORY] = Path(tempfile.mkdtemp(prefix="authz-server-tests-"))
    else:
        config.stash[RUN_DIRECTORY] = Path(worker_input[_WORKER_INPUT])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell a worker process the run's directory (a hook of pytest-xdist)."""
    node.workerinput[_WORKER_INPUT] = str(node.config.stash[RUN_DIRECTORY])


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Collect no garbage among thousands of new test items, which all stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every later garbage collection.

    A full collection goes through millions of objects otherwise, for 0.4 s each time.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Collect the garbage of a file of tests while its last test can report what is left open."""
    yield
    if _is_last(item, nextitem):
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Iterator[object | None]:
    """Leave what outlives some files of tests out of later collections.

    The fixtures of the last test are let go of here, and not yet when they are torn down.
    """
    done = yield
    if _is_last(item, nextitem):
        item.config.stash[_ENDED] = ended = item.config.stash.get(_ENDED, 0) + 1
        if ended % _FILES == 0:
            gc.collect()
            gc.freeze()
    return done


def _is_last(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    return nextitem is None or nextitem.path != item.path


def pytest_sessionfinish() -> None:
    """Let pytest's last collection find what was left open during the whole run."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Leave out what a passing test printed and logged, unless it is to be shown.

    All of it would be sent to the process that began the run.
    """
    report = yield
    if report.passed and not {"P", "A"} & set(item.config.option.reportchars):
        report.sections.clear()
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """Wait until what the run started is gone, then delete the directory."""
    directory = config.stash.get(RUN_DIRECTORY, None)
    if directory is None or hasattr(config, "workerinput"):
        return
    await_end(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def run_directory(pytestconfig: pytest.Config) -> Path:
    """A directory that all worker processes of this run share."""
    return pytestconfig.stash[RUN_DIRECTORY]
