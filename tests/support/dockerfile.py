"""The Dockerfile taken apart, and its build stage carried out without a container engine."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from support.source_tree import ROOT

DOCKERFILE = ROOT / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword in capitals, and the rest with continued lines joined."""

    keyword: str
    rest: str


@dataclass
class Stage:
    """A FROM line and what follows it."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        """Return the rest of each instruction with this keyword."""
        return [i.rest for i in self.instructions if i.keyword == keyword]

    def last(self, keyword: str) -> str:
        """Return the rest of the one that counts."""
        return self.all(keyword)[-1]


@dataclass(frozen=True)
class Dockerfile:
    """The arguments before the first stage, and the stages."""

    arguments: dict[str, str]
    stages: list[Stage]


def read_dockerfile(path: Path) -> Dockerfile:
    """Take a Dockerfile apart."""
    parsed = Dockerfile({}, [])
    for instruction in _instructions(path.read_text(encoding="utf-8")):
        if instruction.keyword == "FROM":
            base, _, name = instruction.rest.partition(" AS ")
            parsed.stages.append(Stage(base, name))
        elif parsed.stages:
            parsed.stages[-1].instructions.append(instruction)
        else:
            name, _, default = instruction.rest.partition("=")
            parsed.arguments[name] = default
    return parsed


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    split = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [Instruction(keyword.upper(), " ".join(rest.split())) for keyword, _, rest in split]


class Carrier:
    """Carries out a stage below a folder that stands for the image's root.

    Only what the build stage uses is known; anything else raises.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root
        python = Path(sys.executable).parent
        self.environment = {
            "HOME": str(root),
            "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
            # How this machine reaches the package index is no part of the image.
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
            # A server compiles the modules that it imports; pip would compile all the others too.
            "PIP_NO_COMPILE": "1",
        }
        self.environment.pop("PIP_REQUIRE_VIRTUALENV", None)

    def carry_out(self, stage: Stage) -> None:
        """Do each instruction in its order."""
        for instruction in stage.instructions:
            getattr(self, f"_{instruction.keyword.lower()}")(instruction.rest)

    def inside(self, text: str) -> str:
        """Return a command or a path with the image's folders moved below the root."""
        return text.replace("/opt/", f"{self.root}/opt/").replace(" /build", f" {self.root}/build")

    def _env(self, rest: str) -> None:
        for setting in rest.split():
            name, _, value = setting.partition("=")
            self.environment.setdefault(name, value)

    def _workdir(self, rest: str) -> None:
        self.folder = self.root / rest.lstrip("/")
        self.folder.mkdir(parents=True)

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        for source in map(ROOT.joinpath, sources):
            into = self.folder / target
            if source.is_dir():
                shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, into)

    def _run(self, rest: str) -> None:
        subprocess.run(
            ["/bin/sh", "-euc", self.inside(rest)],
            cwd=self.folder,
            env=self.environment,
            check=True,
            stdin=subprocess.DEVNULL,
        )
