"""A machine for the real apt and dpkg: a private root and a signed repository of its own.

Nothing outside the given folder is read or written, but for the programs themselves.
As an ordinary user dpkg is told that it need not be root; packages then belong to that
user. A key takes gpg milliseconds, so every machine has one of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.patching.managers.apt import Apt
from agent.patching.managers.apt_root import Root, render_config

PROGRAMS = ("apt-get", "dpkg", "dpkg-deb", "apt-ftparchive", "gpg", "gpgconf")
FOLDERS = (
    "etc/apt/apt.conf.d",
    "etc/apt/preferences.d",
    "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d",
    "var/lib/dpkg/info",
    "var/lib/dpkg/updates",
    "var/lib/dpkg/triggers",
    "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial",
    "var/log/apt",
    "run",
    "boot",
    "tmp",
)


def call(*argv: str | Path, env: Mapping[str, str] | None = None) -> bytes:
    """A program that must succeed."""
    full = {**os.environ, "LC_ALL": "C", **(env or {})}
    done = subprocess.run([str(arg) for arg in argv], env=full, capture_output=True)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


def require_programs(*others: str) -> None:
    absent = [program for program in (*PROGRAMS, *others) if shutil.which(program) is None]
    if absent:
        pytest.skip(f"not run: needs {', '.join(absent)}; packaging/linux/test-tools.sh")


@dataclass(frozen=True)
class Repository:
    """A flat, signed repository in a folder; what is put in is on offer after `publish`."""

    folder: Path
    keyring: Path
    gnupg: Path

    def put(
        self,
        name: str,
        version: str,
        *fields: str,
        arch: str = "all",
        files: Mapping[str, str] | None = None,
        conffiles: Mapping[str, str] | None = None,
        scripts: Mapping[str, str] | None = None,
    ) -> Path:
        """Build a package; `fields` are added to its control file."""
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as made:
            tree = Path(made)
            tree.chmod(0o755)
            control = tree / "DEBIAN"
            control.mkdir()
            contents = {f"usr/share/{name}/version": version, **(files or {}), **(conffiles or {})}
            for path, text in contents.items():
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_text(text)
            if conffiles:
                control.joinpath("conffiles").write_text("".join(f"/{c}\n" for c in conffiles))
            for script, text in (scripts or {}).items():
                control.joinpath(script).write_text(f"#!/bin/sh\n{text}\n")
                control.joinpath(script).chmod(0o755)
            given = [field for field in fields if not field.startswith("Installed-Size")]
            size = next((field for field in fields if field not in given), "Installed-Size: 4")
            lines = [
                f"Package: {name}",
                f"Version: {version}",
                f"Architecture: {arch}",
                "Maintainer: Nobody <nobody@example.org>",
                size,
                *given,
                "Description: made for a test",
            ]
            control.joinpath("control").write_text("\n".join(lines) + "\n")
            archive = self.folder / f"{name}_{version}_{arch}.deb"
            call("dpkg-deb", "-Znone", "-b", tree, archive)
            return archive

    def publish(
        self, suite: str = "stable", label: str = "Test", *, key: Path | None = None
    ) -> None:
        """Write the index and sign it, with `key`'s first key instead of the trusted one."""
        call("sh", "-c", f"cd {self.folder} && apt-ftparchive packages . > Packages")
        stated = {"Origin": "Test", "Label": label, "Suite": suite, "Codename": suite}
        options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in stated.items()]
        release = self.folder / "Release"
        release.unlink(missing_ok=True)
        (self.folder / "InRelease").unlink(missing_ok=True)
        release.write_bytes(call("apt-ftparchive", *options, "release", self.folder))
        home = {"GNUPGHOME": str(key or self.gnupg)}
        call(
            "gpg",
            "--batch",
            "--yes",
            "--clearsign",
            "-o",
            self.folder / "InRelease",
            release,
            env=home,
        )

    def line(self, uri: str | None = None) -> str:
        return f"deb [signed-by={self.keyring}] {uri or f'file:{self.folder}'} ./\n"


@contextmanager
def signing_key() -> Iterator[Path]:
    """A gpg home with one key; in a short path, for gpg-agent's socket."""
    with tempfile.TemporaryDirectory(prefix="gpg", ignore_cleanup_errors=True) as home:
        env = {"GNUPGHOME": home}
        generate = ("--passphrase", "", "--quick-generate-key", "Test <t@example.org>")
        call("gpg", "--batch", "--quiet", *generate, "ed25519", "sign", "never", env=env)
        try:
            yield Path(home)
        finally:
            call("gpgconf", "--kill", "all", env=env)


@dataclass(frozen=True)
class PrivateMachine:
    """A root with apt's folders, one repository, and the manager that works in it."""

    path: Path
    main: Repository
    sources: list[str] = field(default_factory=list)
    output: bytearray = field(default_factory=bytearray)

    @property
    def root(self) -> Root:
        return Root(self.path, self.path / "apt.conf")

    @property
    def apt(self) -> Apt:
        return Apt(root=self.root, on_output=self.output.extend)

    def call(self, *argv: str) -> bytes:
        """One of apt's programs in this root."""
        return call(*argv, env=self.root.env)

    def install(self, *names: str) -> None:
        self.call("apt-get", "-qq", "update")
        self.call("apt-get", "-qq", "-y", "install", *names)

    def version(self, name: str) -> str:
        """The version that the installed files say, not what dpkg says."""
        return (self.path / f"usr/share/{name}/version").read_text()

    def trust(self, *repositories: Repository) -> None:
        lines = "".join(repository.line() for repository in repositories)
        (self.path / "etc/apt/sources.list").write_text(lines)


def make_repository(folder: Path, gnupg: Path) -> Repository:
    folder.mkdir()
    keyring = folder.with_suffix(".gpg")
    keyring.write_bytes(call("gpg", "--export", env={"GNUPGHOME": str(gnupg)}))
    return Repository(folder, keyring, gnupg)


class QuietHandler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        # A test publishes twice within a second, which HTTP's dates cannot tell apart.
        del self.headers["If-Modified-Since"]
        super().do_GET()

    def log_message(self, *args: Any) -> None:
        return


@contextmanager
def served(repository: Repository) -> Iterator[str]:
    """The repository's address on a loopback HTTP server.

    Unlike with `file:`, apt then keeps copies of the index instead of links to it.
    """
    handler = partial(QuietHandler, directory=str(repository.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


@contextmanager
def private_machine(folder: Path) -> Iterator[PrivateMachine]:
    require_programs()
    root = folder / "root"
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    native = call("dpkg", "--print-architecture").decode().strip()
    options = ["--force-script-chrootless"]
    if os.geteuid() != 0:
        options.append("--force-not-root")
    # Tries again are for networks that recover; here each costs a second for nothing.
    retries = 'Acquire::Retries "0";\n'
    (root / "apt.conf").write_text(render_config(root, native, options) + retries)
    with signing_key() as gnupg:
        machine = PrivateMachine(root, make_repository(folder / "main", gnupg))
        machine.trust(machine.main)
        yield machine
