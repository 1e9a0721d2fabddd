"""Recorded machines: a tree of files, and programs that print what was recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.host.process import Finished, ProgramError
from agent.inventory.sources import Sources, sources_at

DATA = Path(__file__).parents[2] / "data" / "inventory"
DEBIAN = DATA / "debian12"


def recorded(name: str) -> str:
    return (DATA / name).read_text()


class Replay:
    """A `Run` that prints recorded output for argument lists that begin with certain words."""

    def __init__(self, printed: Mapping[str, bytes | str]) -> None:
        self._printed = printed

    def __call__(self, *argv: str, **_: Any) -> Finished:
        line = " ".join(argv)
        for words, output in self._printed.items():
            if line.startswith(words):
                content = output if isinstance(output, bytes) else output.encode()
                return Finished(argv, 0, content, b"")
        raise ProgramError(f"cannot start {argv[0]}: No such file or directory")


def machine(root: Path, printed: Mapping[str, bytes | str] | None = None) -> Sources:
    """The machine recorded under `root`, whose only address is the loopback one."""
    return dataclasses.replace(
        sources_at(root, run=Replay(printed or {})),
        addresses_v4=lambda: {"lo": ["127.0.0.1/8"]},
        arch="x86_64",
    )


def tree(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files under a root; a text that begins with `-> ` becomes a link."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root
