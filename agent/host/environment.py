"""The environment that every program gets, and where programs are looked for in it.

Nothing of the agent's own is inherited but what Windows' programs cannot do without: where
the system, its programs and the folder for temporary files lie.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NEEDED_BY_WINDOWS = (
    "ALLUSERSPROFILE",
    "APPDATA",
    "CommonProgramFiles",
    "CommonProgramFiles(x86)",
    "CommonProgramW6432",
    "COMPUTERNAME",
    "ComSpec",
    "LOCALAPPDATA",
    "NUMBER_OF_PROCESSORS",
    "OS",
    "PATHEXT",
    "PROCESSOR_ARCHITECTURE",
    "ProgramData",
    "ProgramFiles",
    "ProgramFiles(x86)",
    "ProgramW6432",
    "SystemDrive",
    "SystemRoot",
    "TEMP",
    "TMP",
    "USERDOMAIN",
    "USERNAME",
    "USERPROFILE",
    "windir",
)
_SYSTEM_FOLDERS = ("System32", "", "System32\\Wbem", "System32\\WindowsPowerShell\\v1.0")
_PATHEXT = ".COM;.EXE"


def environment_of(system: str, own: Mapping[str, str]) -> dict[str, str]:
    """What a program's environment is before an order adds to it. `own` is the agent's.

    Names count on Windows however they are written.
    """
    if system == "win32":
        upper = {name.upper(): value for name, value in own.items()}
        kept = {name: upper[name.upper()] for name in _NEEDED_BY_WINDOWS if name.upper() in upper}
        root = kept.setdefault("SystemRoot", "C:\\Windows")
        kept["PATH"] = ";".join(f"{root}\\{one}".rstrip("\\") for one in _SYSTEM_FOLDERS)
        return kept
    # macOS knows no locale of C that has UTF-8 before its release 14.
    locale = "en_US.UTF-8" if system == "darwin" else "C.UTF-8"
    return {"PATH": _PATH, "LC_ALL": locale, "LANG": locale}


def top_of(system: str, environment: Mapping[str, str]) -> str:
    """The folder that programs run in where an order names none."""
    return f"{environment.get('SystemDrive', 'C:')}\\" if system == "win32" else "/"


def with_added(
    environment: Mapping[str, str], *more: Mapping[str, str], system: str = sys.platform
) -> dict[str, str]:
    """An environment with further names; Windows takes PATH and Path for the same one.

    >>> with_added({"PATH": "a"}, {"Path": "b"}, system="win32")
    {'Path': 'b'}
    """
    found = dict(environment)
    for name, value in ((name, value) for one in more for name, value in one.items()):
        if system == "win32":
            for other in [other for other in found if other.upper() == name.upper()]:
                del found[other]
        found[name] = value
    return found


def path_in(environment: Mapping[str, str], otherwise: str = "") -> str:
    """Where programs are looked for in an environment, however Windows' name for that is written.

    >>> path_in({"Path": "C:\\\\x"}), path_in({}, "/bin")
    ('C:\\\\x', '/bin')
    """
    return next((value for name, value in environment.items() if name.upper() == "PATH"), otherwise)


ENVIRONMENT = environment_of(sys.platform, os.environ)
TOP = top_of(sys.platform, ENVIRONMENT)


def find_program(name: str, path: str = ENVIRONMENT["PATH"]) -> str | None:
    """Where a program lies that is named without a folder; None when it is nowhere."""
    if sys.platform == "win32":
        places = windows_places(name, path, ENVIRONMENT.get("PATHEXT", _PATHEXT))
        return next((place for place in places if Path(place).is_file()), None)
    return shutil.which(name, path=path)


def windows_places(name: str, path: str, endings: str) -> Iterator[str]:
    """Where Windows' own search would look along `path`, and nowhere else.

    Windows also looks beside the program that asks, and in the folder it is in: whoever may
    write there must not choose what an order starts.

    >>> list(windows_places("a", "C:\\\\x;;y", ".EXE"))
    ['C:\\\\x\\\\a', 'C:\\\\x\\\\a.EXE']
    """
    for folder in path.split(";"):
        if folder[1:3] == ":\\" or folder.startswith("\\\\"):
            yield f"{folder}\\{name}"
            yield from (f"{folder}\\{name}{ending}" for ending in endings.split(";") if ending)
