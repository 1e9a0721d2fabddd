"""Build the agent as one folder, and a Debian package of it.

    python packaging/build.py [--into DIRECTORY] [--folder-only]

The folder is DIRECTORY/dist/stead-agent, the package beside it. The same sources with
the same libraries and the same Python give the same bytes: the time is that of the last
commit (or SOURCE_DATE_EPOCH), and the hash seed is fixed.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

from licences import render_copyright

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {"objdump": "binutils", "objcopy": "binutils", "strip": "binutils", "patchelf": "patchelf"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LIBC_SYMBOL = re.compile(rb"GLIBC_(\d+(?:\.\d+)+)")
MEGABYTE = 1_000_000


def main() -> None:
    """Build, and say how large the results are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT, help="where dist/ and build/ go")
    parser.add_argument("--folder-only", action="store_true", help="make no package")
    asked = parser.parse_args()
    if absent := sorted({NEEDED[name] for name in NEEDED if shutil.which(name) is None}):
        raise SystemExit(f"building needs {' and '.join(absent)}: install with apt-get")
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": source_date(),
        "PYTHONHASHSEED": "0",
        # Its cache of stripped libraries lies in the home directory otherwise.
        "PYINSTALLER_CONFIG_DIR": str(asked.into.resolve() / "build" / "cache"),
    }
    folder = build_folder(asked.into.resolve(), environment)
    report(folder, sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()))
    if not asked.folder_only:
        package = build_package(folder, asked.into.resolve(), environment)
        report(package, package.stat().st_size)


def source_date() -> str:
    """Seconds since 1970 at which the sources are dated."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    log = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        return subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("no git history to date the sources by: set SOURCE_DATE_EPOCH") from None


def build_folder(into: Path, environment: Mapping[str, str]) -> Path:
    """Run PyInstaller. What it says matters only when it fails."""
    began = time.monotonic()
    command = [
        sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level", "WARN",
        "--distpath", str(into / "dist"), "--workpath", str(into / "build"),
        str(ROOT / "packaging" / "linux" / "agent.spec"),
    ]  # fmt: skip
    ended = subprocess.run(
        command,
        check=False,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if ended.returncode != 0:
        sys.stderr.buffer.write(ended.stdout)
        raise SystemExit("PyInstaller failed")
    folder = into / "dist" / "stead-agent"
    drop_foreign_paths(folder)
    settle(folder, int(environment["SOURCE_DATE_EPOCH"]))
    print(f"built in {time.monotonic() - began:.0f} s")
    return folder


def drop_foreign_paths(folder: Path) -> None:
    """Take out the folders of the building machine in which a library looks for others.

    Whoever has a home of the builder's name on another machine could put a library of
    theirs into the agent otherwise.
    """
    for path in libraries(folder):
        asked = ["patchelf", "--print-rpath", str(path)]
        places = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        if any(not place.startswith("$ORIGIN") for place in places.strip().split(":") if place):
            subprocess.run(["patchelf", "--remove-rpath", str(path)], check=True)


def libraries(folder: Path) -> list[Path]:
    """The bundle's shared libraries; the program itself has none of its own to look for."""
    return [path for path in folder.rglob("*.so*") if not path.is_symlink() and is_elf(path)]


def settle(folder: Path, moment: int) -> None:
    """Take the builder's umask and the time of building out of the result."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            runs = path.is_dir() or path.parent == folder
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (moment, moment), follow_symlinks=False)


def build_package(folder: Path, into: Path, environment: Mapping[str, str]) -> Path:
    """Run nfpm on a built folder."""
    architecture = ARCHITECTURES[platform.machine()]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    copyright_file = into / "build" / "copyright"
    copyright_file.write_text(render_copyright(folder, ROOT / "requirements" / "agent.lock"))
    package = into / "dist" / f"stead-agent_{version}_{architecture}.deb"
    given = {
        "PACKAGE_VERSION": version,
        "PACKAGE_ARCH": architecture,
        "PACKAGE_LIBC": needed_libc(folder),
        "PACKAGE_FOLDER": str(folder),
        "PACKAGE_COPYRIGHT": str(copyright_file),
    }
    command = [
        str(Path(sys.executable).with_name("nfpm")), "package", "--packager", "deb",
        "--config", str(ROOT / "packaging" / "linux" / "nfpm.yaml"), "--target", str(package),
    ]  # fmt: skip
    subprocess.run(
        command, env={**environment, **given}, cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    return package


def needed_libc(folder: Path) -> str:
    """The newest version of glibc of which a bundled program or library uses a symbol."""
    programs = map(str, [folder / "stead-agent", *libraries(folder)])
    dump = subprocess.run(["objdump", "--dynamic-syms", *programs], capture_output=True, check=True)
    found = {tuple(map(int, version.split(b"."))) for version in LIBC_SYMBOL.findall(dump.stdout)}
    return ".".join(map(str, max(found)))


def is_elf(path: Path) -> bool:
    """Whether a file is something that the loader loads."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def report(path: Path, size: int) -> None:
    """One line for what was made."""
    print(f"{size / MEGABYTE:7.1f} MB  {path}")


if __name__ == "__main__":
    main()
