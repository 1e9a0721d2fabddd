"""The system that this process runs on."""

from __future__ import annotations

import sys
from typing import Final

from agent.metadata.port import System


def _this() -> System:
    if sys.platform == "darwin":
        from agent.metadata.macos.calls import MacOS

        return MacOS()
    from agent.metadata.linux import Linux

    return Linux()


SYSTEM: Final = _this()
