"""Ask Windows' CIM classes, by PowerShell, for what psutil does not tell.

The classes and their properties are those of Microsoft's CIMWin32 provider. Each answer is a
list of objects as JSON, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agent.host.process import Run
from protocol.errors import UNREADABLE, UnavailableError


def powershell(name: str, properties: Sequence[str]) -> tuple[str, ...]:
    """How PowerShell is called for the instances of a class. Both are words of ours."""
    # Without this the answer comes in the machine's old code page.
    command = (
        "$ErrorActionPreference='Stop';"
        "[Console]::OutputEncoding=[Text.UTF8Encoding]::new($false);"
        f"ConvertTo-Json -Compress -InputObject @(Get-CimInstance -ClassName {name}"
        f" | Select-Object -Property {','.join(properties)})"
    )
    return ("powershell.exe", "-NoProfile", "-NonInteractive", "-Command", command)


def parse_instances(output: bytes) -> list[dict[str, Any]]:
    """The objects of an answer; raises `UnavailableError` for anything else."""
    try:
        return msgspec.json.decode(output.strip(), type=list[dict[str, Any]])
    except UNREADABLE as error:
        said = output[:80].decode(errors="replace")
        raise UnavailableError(f"PowerShell printed something unknown: {said!r}") from error


def instances(run: Run, name: str, properties: Sequence[str]) -> list[dict[str, Any]]:
    """The instances of a class. Raises `SteadError` where it cannot be asked."""
    return parse_instances(run(*powershell(name, properties)).checked())


def text(row: dict[str, Any], name: str) -> str | None:
    """A property that is a text; None where the maker left it empty."""
    value = row.get(name)
    return value.strip() or None if isinstance(value, str) else None


def number(row: dict[str, Any], name: str) -> int | None:
    """A property that is a number, which 64 bits wide may come as a text."""
    value = row.get(name)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def texts(row: dict[str, Any], name: str) -> list[str]:
    """A property that is a list of texts, or nothing."""
    value = row.get(name)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
