"""The system that this process runs on."""

from __future__ import annotations

import sys
from typing import Final

from agent.metadata.port import System


def _this() -> System:
    if sys.platform == "darwin":
        from agent.metadata.macos.calls import MacOS

        return MacOS()
    if sys.platform == "win32":
        from agent.metadata.windows.native import Native
        from agent.metadata.windows.windows import Windows

        return Windows(Native())
    from agent.metadata.linux import Linux

    return Linux()


SYSTEM: Final = _this()
