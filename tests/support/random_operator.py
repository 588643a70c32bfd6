"""An operator who does one random thing after the other to a `RandomSite`."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from keys.lifecycle.rules import PUBLIC_STATES
from support.expectations import Act
from support.random_site import SCOPES, SPREAD_SECONDS, RandomSite

REASON = ("--reason", "random")


class Operator:
    """Does one random thing after the other to a site."""

    def __init__(self, site: RandomSite, chance: random.Random) -> None:
        self.site, self.chance = site, chance
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        self.acts: list[tuple[int, Callable[[], object]]] = [
            (6, self.rotate),
            (2, self.move),
            (3, self.revoke_key),
            (2, self.taint),
            (3, self.freeze),
            (2, self.activate),
            (2, self.tick),
            (3, self.disable),
            (3, self.stop),
            (3, self.cut_off),
            (2, self.recreate),
            (3, self.rotate_secret),
            (2, self.apply),
            (2, self.purge),
            (3, self.reload),
            (4, self.kill_worker),
            (1, self.restart_node),
        ]

    def run(self, seconds: float) -> None:
        """Act until the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            weights = [weight for weight, _ in self.acts]
            ((_, act),) = self.chance.choices(self.acts, weights)
            self.done[act.__name__] += 1
            act()
            time.sleep(self.chance.uniform(0, 0.8))

    def command(self, *arguments: str) -> Act:
        """Run a command."""
        act, output = self.site.command(*arguments)
        if not act.acknowledged:
            self.failed.append(f"{' '.join(arguments)}: {output[-300:]}")
        assert "Something unexpected" not in output, output
        return act

    # ---------------------------------------------------------------------------------- keys

    def keys(self) -> list[dict]:
        """Return the keys of all rings as a command lists them."""
        act, output = self.site.command("keys", "list", "--json")
        return json.loads(output.partition("\nWarning")[0]) if act.acknowledged else []

    def ring(self) -> str:
        return self.chance.choice(self.site.ring_names)

    def rotate(self) -> None:
        self.command("keys", "rotate", self.ring(), "--yes", *REASON)

    def move(self) -> None:
        self.command("keys", "move", self.ring(), "--to", self.ring(), *REASON)

    def tick(self) -> None:
        self.command("keys", "tick")

    def freeze(self) -> None:
        ring = self.ring()
        self.command("keys", "freeze", ring, *REASON)
        time.sleep(self.chance.uniform(0, 8))
        self.command("keys", "unfreeze", ring, *REASON)

    def activate(self) -> None:
        kids = [key["kid"] for key in self.keys() if key["state"] == "published"]
        if kids:
            with self.exception():
                options = ("--emergency",) if self.chance.random() < 0.5 else ()
                self.command("keys", "activate", self.chance.choice(kids), *options, *REASON)

    def taint(self) -> None:
        with self.exception():
            self.command("keys", "taint", self.ring(), "--yes", *REASON)

    def revoke_key(self) -> None:
        """Any key in the JWKS; or all of a ring."""
        public = [key for key in self.keys() if key["state"] in PUBLIC_STATES]
        if not public:
            return
        key = self.chance.choice(public)
        every = self.chance.random() < 0.3
        ended = [each["kid"] for each in public if every and each["ring"] == key["ring"]]
        with self.exception():
            options = ("--all-versions",) if every else ()
            act = self.command("keys", "revoke", key["kid"], *options, "--yes", *REASON)
        for kid in {key["kid"], *ended}:
            # Nodes read keys at an interval: the end of the act is when all have done so.
            self.site.expected.cut(f"key:{kid}", replace(act, ended=act.ended + 1.5))

    @contextmanager
    def exception(self) -> Iterator[None]:
        """Let keys sign that verifiers may not know, as an emergency permits."""
        started = time.monotonic()
        self.site.exceptions.append((started, float("inf")))
        place = len(self.site.exceptions) - 1
        try:
            yield
        finally:
            self.site.exceptions[place] = (started, time.monotonic() + 20)

    # --------------------------------------------------------------------- clients and stops

    def client(self) -> str:
        return self.chance.choice(list(self.site.credentials))

    def switch(self, name: str, on: tuple[str, ...], off: tuple[str, ...]) -> None:
        """Block something for a while."""
        act = self.command(*on)
        self.site.expected.switch(name, replace(act, blocks=True))
        time.sleep(self.chance.uniform(0, 5))
        while True:
            act = self.command(*off)
            self.site.expected.switch(name, replace(act, blocks=False))
            if act.acknowledged or "stopped" in self.failed[-1] or "no stop" in self.failed[-1]:
                return
            time.sleep(1)

    def disable(self) -> None:
        client = self.client()
        also = ("--revoke",) if self.chance.random() < 0.3 else ()
        started = time.monotonic()
        disable = ("client", "disable", client, *also)
        self.switch(f"client:{client}", disable, ("client", "enable", client))
        if also:
            act = Act(started, time.monotonic(), acknowledged=True)
            self.site.expected.cut(f"client:{client}", act)

    def stop(self) -> None:
        kind, subject = self.chance.choice(
            [("client", self.client())]
            + [("scope", scope) for scope in SCOPES.values()]
            + [("resource-server", server) for server in SCOPES]
        )
        name = f"stop:{kind}:{subject}"
        self.switch(
            name,
            ("stop", kind, subject, "--yes", *REASON),
            ("stop", "lift", kind, subject, *REASON),
        )

    def cut_off(self) -> None:
        client, scope = self.client(), self.chance.choice(list(SCOPES.values()))
        name, options = self.chance.choice(
            [
                (f"client:{client}", ("--client", client)),
                (f"scope:{scope}", ("--scope", scope)),
                ("all", ("--before", "now")),
            ]
        )
        self.site.expected.cut(name, self.command("revoke", *options, "--yes", *REASON))

    def recreate(self) -> None:
        client = self.client()
        act = self.command("client", "delete", client, "--yes")
        self.site.expected.cut(f"client:{client}", act)
        self.site.expected.switch(f"gone:{client}", replace(act, blocks=True))
        time.sleep(self.chance.uniform(0, 4))
        started, made = time.monotonic(), False
        for _ in range(30):
            # The database may be away.
            with suppress(Exception):
                self.site.credentials[client] = self.site.remake_client(client)
                made = True
                break
            time.sleep(1)
        act = Act(started, time.monotonic(), acknowledged=made, blocks=False)
        self.site.expected.switch(f"gone:{client}", act)
        # A node that had not heard of the deletion may have issued a token: it does not live again.
        self.site.expected.cut(f"client:{client}", act)

    def rotate_secret(self) -> None:
        client = self.client()
        act, output = self.site.command("client", "secret", "list", client, "--json")
        if not act.acknowledged:
            return
        old = [secret["id"] for secret in json.loads(output)]
        with suppress(Exception):  # the database may be away
            credentials = self.site.parties.add_secret(client)
            time.sleep(SPREAD_SECONDS)
            self.site.credentials[client] = credentials
            time.sleep(SPREAD_SECONDS)
            for secret in old:
                self.command("client", "secret", "end", client, secret, "--yes")

    def apply(self) -> None:
        """A declarative file that renames a client, and disables it for a while."""
        client, path = self.client(), self.site.directory / "declared.json"
        act, output = self.site.command("export", "--format", "json")
        if not act.acknowledged:
            return
        entry = json.loads(output)["clients"].get(client)
        if entry is None:
            return
        entry |= {"enabled": False, "name": f"Name {self.chance.random()}"}
        path.write_text(json.dumps({"format": 1, "clients": {client: entry}}))
        applied = ("apply", str(path), "--yes")
        self.switch(f"client:{client}", applied, ("client", "enable", client))

    # -------------------------------------------------------------------------------- faults

    def node(self) -> int:
        return self.chance.randrange(len(self.site.servers))

    def purge(self) -> None:
        self.command("db", "purge")

    def reload(self) -> None:
        """New workers, without a lost request."""
        for _ in range(self.chance.choice([1, 1, 1, 5])):
            self.site.servers[self.node()].send_signal(signal.SIGHUP)

    def kill_worker(self) -> None:
        node = self.node()
        with self.site.fault(node):
            if workers := self.site.servers[node].worker_process_ids():
                os.kill(self.chance.choice(workers), signal.SIGKILL)

    def restart_node(self) -> None:
        node = self.node()
        with self.site.fault(node):
            if self.chance.random() < 0.5:
                self.site.servers[node].kill()
            else:
                self.site.servers[node].stop()
            self.site.servers[node].start()
