"""Which services launchd starts by itself. Pure."""

from __future__ import annotations

import re

_SWITCH = re.compile(r'\s*"(.+)" => (\w+)')


def parse_disabled(output: str) -> dict[str, bool]:
    """Whether services are disabled, by label, as `launchctl print-disabled system` prints it.

    Before macOS 13 the words were `true` and `false`.
    """
    found = filter(None, map(_SWITCH.fullmatch, output.splitlines()))
    return {match[1]: match[2] in ("disabled", "true") for match in found}
