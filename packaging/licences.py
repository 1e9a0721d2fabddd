"""The copyright file of a bundle: whose work is in it, and on which terms.

Read from what was bundled: the metadata of Python distributions, the licence of Python,
and the copyright files of the system packages that its shared libraries come from.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.IGNORECASE)
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==[^ ]+(?: ; (.*))?", re.MULTILINE)
OWN = """\
stead-agent is part of Stead, under the Apache License 2.0, which is in
/usr/share/common-licenses/Apache-2.0.

With it come parts of the following, each on its own terms.
"""


def render_copyright(folder: Path, lock: Path) -> str:
    """The text for a bundle in `folder` whose distributions `lock` pins."""
    parts = [OWN]
    for title, text in (*_distributions(lock), _python(), *_libraries(folder)):
        parts.append(f"{'=' * 78}\n{title}\n{'=' * 78}\n\n{text.strip()}\n")
    return "\n".join(parts)


def _distributions(lock: Path) -> Iterator[tuple[str, str]]:
    for name, marker in PINNED.findall(lock.read_text()):
        if "win32" in marker or "Windows" in marker:
            continue  # not installed here, so not bundled
        found = distribution(name)
        yield f"{name} {found.version}", "\n\n".join(_texts(found)) or _declared(found)


def _texts(found: Distribution) -> Iterator[str]:
    for path in found.files or ():
        inside = any(part.endswith(".dist-info") for part in path.parts)
        if inside and LICENCE_FILE.match(path.name):
            yield Path(str(found.locate_file(path))).read_text(errors="replace")


def _declared(found: Distribution) -> str:
    for field in ("License-Expression", "License"):
        if field in found.metadata:
            return found.metadata[field]
    raise SystemExit(f"{found.name} names no licence: see whether it may be bundled")


def _python() -> tuple[str, str]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in (library / "LICENSE.txt", library / "LICENSE"):
        if path.is_file():
            return "Python", path.read_text()
    return (
        "Python",
        "Python Software Foundation License 2.0, https://docs.python.org/3/license.html",
    )


def _libraries(folder: Path) -> Iterator[tuple[str, str]]:
    """The terms of the system's libraries, where dpkg knows whose they are."""
    owners: dict[str, list[str]] = {}
    for path in sorted((folder / "_internal").glob("lib*.so*")):
        if path.name.startswith("libpython"):
            continue  # covered by Python itself
        answer = subprocess.run(
            ["dpkg-query", "--search", f"*/{path.name}"],
            check=False,
            capture_output=True,
            text=True,
        )
        if answer.returncode == 0:
            package = answer.stdout.split(":", 1)[0].split(",", 1)[0]
            owners.setdefault(package, []).append(path.name)
    for package, names in sorted(owners.items()):
        file = Path("/usr/share/doc") / package / "copyright"
        if file.is_file():
            yield f"{', '.join(names)} (of Debian's {package})", file.read_text(errors="replace")
