"""What belongs to a whole test run: its directory, shared by the worker processes, and its end."""

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.settings_file import share_secrets
from support.shared_postgresql import await_end

RUN_DIRECTORY = pytest.StashKey[Path]()
_WORKER_INPUT = "authz_server_run_directory"
#: Garbage collections are seldom, as everything is collected at the end of each file.
_THRESHOLDS = (5_000, 10, 10)


def pytest_configure(config: pytest.Config) -> None:
    """Make the directory in the process that began the run; the workers are told where it is."""
    worker_input = getattr(config, "workerinput", None)
    if worker_input is None:
        config.stash[RUN_DIRECTORY] = Path(tempfile.mkdtemp(prefix="authz-server-tests-"))
    else:
        config.stash[RUN_DIRECTORY] = Path(worker_input[_WORKER_INPUT])
        send_less(config)
    share_secrets(config.stash[RUN_DIRECTORY] / "secrets.json")


def send_less(config: pytest.Config) -> None:
    """Have a worker process report a test that passes by two messages instead of six.

    The others say when it begins and ends, and that its setup and teardown passed, which is shown
    on demand alone. They take 0.4 ms of processor time.
    """
    options, file = config.option, config.getoption("xmlpath", None)
    if options.verbose > 0 or options.durations is not None or file:
        return
    (worker,) = (each for each in config.pluginmanager.get_plugins() if hasattr(each, "sendevent"))
    send = worker.sendevent

    def sendevent(name: str, **values: Any) -> None:
        report = values.get("data", {})
        is_passed_phase = report.get("outcome") == "passed" and report["when"] != "call"
        if name not in {"logstart", "logfinish"} and not is_passed_phase:
            send(name, **values)

    worker.sendevent = sendevent


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
    """Collect the garbage of a file of tests while its last test can report what is left open.

    What outlives a file is left out of later collections: each would go through it again.
    """
    yield
    if nextitem is None or nextitem.path != item.path:
        # Otherwise these values would outlive the file.
        getattr(item, "funcargs", {}).clear()
        gc.collect()
        gc.freeze()


def pytest_sessionfinish() -> None:
    """Let pytest's last collection find what was left open during the whole run."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Leave out what a passing test printed and logged, unless it is to be shown, and its marks.

    All of it would be sent to the process that began the run.
    """
    report = yield
    if report.passed:
        report.keywords.clear()
    if report.passed and not {"P", "A"} & set(item.config.option.reportchars):
        report.sections.clear()
    return report


@pytest.hookimpl(wrapper=True)
def pytest_unconfigure(config: pytest.Config) -> Iterator[None]:
    """Wait until what the run started is gone, then delete the directory."""
    try:
        yield
    finally:
        # Pytest has collected everything; what follows would do so again, for seconds.
        gc.freeze()
        directory = config.stash.get(RUN_DIRECTORY, None)
        if directory is not None and not hasattr(config, "workerinput"):
            await_end(directory)
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def run_directory(pytestconfig: pytest.Config) -> Path:
    """A directory that all worker processes of this run share."""
    return pytestconfig.stash[RUN_DIRECTORY]
