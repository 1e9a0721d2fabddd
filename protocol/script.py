"""Which interpreter a script wants: what is sent with it, and what its first line says."""

from __future__ import annotations

import shlex

SHELLS = ("sh", "bash", "python", "powershell")
"""The interpreters that a script can name."""

_NAMES = {
    "sh": "sh",
    "bash": "bash",
    "python": "python",
    "python3": "python",
    "pwsh": "powershell",
    "powershell": "powershell",
}
_USUAL = ("/bin/", "/usr/bin/", "/usr/local/bin/")
_LONGEST_LINE = 512


def wanted_by(body: bytes) -> tuple[str, tuple[str, ...]] | None:
    """The interpreter of a script's `#!` line and its flags; None when it names none of ours.

    The place counts too: who wants an interpreter of their own does not want the machine's.

    >>> wanted_by(b"#!/usr/bin/env bash\\n"), wanted_by(b"#!/bin/sh -eu\\n")
    (('bash', ()), ('sh', ('-eu',)))
    >>> wanted_by(b"#!/opt/venv/bin/python\\n") is None
    True
    """
    words = line_of(body)
    if words and words[0] == "/usr/bin/env":
        words = words[2:] if words[1:2] == ["-S"] else words[1:]
        words = [_USUAL[0] + words[0], *words[1:]] if words else []
    if not words:
        return None
    for place in _USUAL:
        name = _NAMES.get(words[0].removeprefix(place))
        if name and words[0].startswith(place):
            return name, tuple(words[1:])
    return None


def line_of(body: bytes) -> list[str]:
    """The words of a script's `#!` line; none when it has no such line."""
    if not body.startswith(b"#!"):
        return []
    line = body[2:_LONGEST_LINE].split(b"\n", 1)[0]
    try:
        return shlex.split(line.decode())
    except ValueError:
        return []
