"""An engineer who troubles the database, the Vault and a clock of a `RandomSite`."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import authz_server
from support.postgresql import PostgresServer
from support.random_site import RandomSite
from support.tcp_proxy import TcpProxy
from support.vault_side import VaultEngines

# Under libfaketime, time.sleep of Python 3.11 and newer fails unless monotonic clocks are faked.
_SLEEP = """
import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


class Engineer:
    """Troubles the database, the Vault and a clock, beside the operator."""

    def __init__(self, site: RandomSite, chance: random.Random) -> None:
        self.site, self.chance = site, chance
        self.troubles: list[Callable[[], object]] = []
        self.done: Counter[str] = Counter()
        self._over, self._rests, self._end = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._end.set()
        self._thread.join()

    def rest(self) -> None:
        """Make no more trouble; return when the last one is over."""
        self._over.set()
        self._rests.wait()

    def _run(self) -> None:
        while self.troubles and not self._over.wait(self.chance.uniform(2, 9)):
            trouble = self.chance.choice(self.troubles)
            self.done[trouble.__name__] += 1
            trouble()
        self._rests.set()
        # A database that was started here ends with this thread.
        self._end.wait()

    def trouble_database(self, server: PostgresServer, proxy: TcpProxy) -> None:
        def restart_database() -> None:
            with self.site.fault():
                server.restart(immediate=self.chance.random() < 0.5)
                time.sleep(2)

        def pause_database() -> None:
            with self.site.fault():
                with server.paused():
                    time.sleep(self.chance.uniform(0.5, 4))
                time.sleep(2)

        def cut_database() -> None:
            with self.site.fault():
                self.chance.choice([proxy.silence, proxy.refuse])()
                time.sleep(self.chance.uniform(0.5, 4))
                proxy.heal()
                time.sleep(2)

        self.troubles += [restart_database, pause_database, cut_database]

    def trouble_vault(self, side: VaultEngines, proxy: TcpProxy) -> None:
        def cut_vault() -> None:
            with self.site.fault():
                self.chance.choice([proxy.silence, proxy.refuse])()
                time.sleep(self.chance.uniform(0.5, 6))
                proxy.heal()
                # An address that failed is tried again after up to 15 s.
                time.sleep(15)

        def end_vault_tokens() -> None:
            with self.site.fault():
                side.end_tokens()
                time.sleep(12)

        def rotate_in_vault() -> None:
            side.admin.call("POST", f"{side.mount}/keys/remote/rotate")

        self.troubles += [cut_vault, end_vault_tokens, rotate_in_vault]

    def trouble_clock(self, file: Path, node: int) -> None:
        self.site.wrong_clocks.add(node)

        def skew() -> None:
            with self.site.fault(node):
                file.write_text(f"{self.chance.choice([-3_000, -30, 30, 3_000]):+d}")
                time.sleep(self.chance.uniform(2, 8))
                file.write_text("+0")
                time.sleep(4)

        self.troubles.append(skew)


def clock_prefix(file: Path) -> tuple[str, ...]:
    """Return the command under which a program's clock is set by a file; () without libfaketime."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        return ()
    file.write_text("+0")
    modules = file.with_name("sleeping")
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(_SLEEP)
    return (
        "env",
        f"PYTHONPATH={modules}:{Path(authz_server.__file__).parents[1]}",
        f"LD_PRELOAD={libraries[0]}",
        f"FAKETIME_TIMESTAMP_FILE={file}",
        "FAKETIME_CACHE_DURATION=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "FAKETIME_DONT_RESET=1",
    )
