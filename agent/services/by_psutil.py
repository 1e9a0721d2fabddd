"""What psutil knows of processes, and of Windows' services."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import psutil

from agent.services.manager import ServiceError
from protocol.errors import NotFoundError


def memory_of(pid: int) -> int | None:
    """The resident bytes of a process; None when it has ended or may not be looked at."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


if sys.platform == "win32":

    def described(name: str) -> Mapping[str, Any]:
        """See `agent.services.windows.WindowsServices`."""
        try:
            service = psutil.win_service_get(name)
            return {
                "name": service.name(),
                "display_name": service.display_name(),
                "start_type": service.start_type(),
            }
        except psutil.NoSuchProcess:
            raise NotFoundError(f"this machine has no service {name!r}") from None
        except (psutil.AccessDenied, OSError) as error:
            raise ServiceError(f"cannot look at {name}: {error}") from error
