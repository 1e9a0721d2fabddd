"""Tell from file names whether a Linux machine waits for a restart.

Pure. Debian and Ubuntu packages leave `/run/reboot-required` and name themselves in
`/run/reboot-required.pkgs`; a kernel that is newer than the running one says the same
where nobody writes that file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from agent.patching.manager import RebootNeed

_KERNEL = re.compile(r"(\d+(?:[.-]\d+)*)(.*)")


def newer_kernels(running: str, images: Iterable[str]) -> tuple[str, ...]:
    """Releases among `vmlinuz-RELEASE` files newer than the running one, of its flavour.

    >>> newer_kernels("6.1.0-9-amd64", ["vmlinuz-6.1.0-10-amd64", "vmlinuz-6.1.0-9-amd64"])
    ('6.1.0-10-amd64',)
    """
    own = _KERNEL.fullmatch(running)
    if own is None:
        return ()
    newer = []
    for image in images:
        match = _KERNEL.fullmatch(image.removeprefix("vmlinuz-"))
        if (
            match
            and match.group(2) == own.group(2)
            and _numbers(match.group(1)) > _numbers(own.group(1))
        ):
            newer.append(match.group())
    return tuple(sorted(newer, key=_numbers))


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def judge_reboot(
    flagged: bool, packages: Iterable[str], running: str, images: Iterable[str]
) -> RebootNeed:
    """Whether to restart: `flagged` is that the file exists, `packages` its list."""
    reasons = [f"{name} asks for it" for name in sorted(set(packages))] if flagged else []
    if flagged and not reasons:
        reasons = ["a package asks for it"]
    reasons += [
        f"kernel {release} is installed and {running} is running"
        for release in newer_kernels(running, images)
    ]
    return RebootNeed(needed=bool(reasons), reasons=tuple(reasons))
