"""A controller and an agent in a directory of their own, run as a person would run them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1"
START_S = 30.0
STOP_S = 15.0


class InstallationError(Exception):
    """A command or a service did not do what it should."""


@dataclass
class Installation:
    """Everything of one controller, one operator and one agent, under `home`."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What every program gets."""
        return {
            **os.environ,
            "STEAD_HOME": str(self.home),
            # What is backed up may be the Python that runs this: it must stand still.
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "100",
        }

    def run(
        self, *argv: str, stdin: str = "", timeout: float = 900.0
    ) -> subprocess.CompletedProcess[str]:
        """Run one of our programs to its end, whatever its exit code."""
        return subprocess.run(
            [str(BIN / argv[0]), *argv[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.home,
            timeout=timeout,
            check=False,
        )

    def must(self, *argv: str, stdin: str = "", timeout: float = 900.0) -> str:
        """Standard output of a command that succeeds."""
        ended = self.run(*argv, stdin=stdin, timeout=timeout)
        if ended.returncode != 0:
            raise InstallationError(
                f"`{' '.join(argv)}` ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
            )
        return ended.stdout

    @contextmanager
    def service(self, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run one of our services for as long as the block lasts."""
        log = self.home / f"{argv[0]}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(BIN / argv[0]), *argv[1:]],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                cwd=self.home,
            )
        try:
            yield process
        except BaseException:
            print(f"\n--- the end of {log.name}", *_tail(log), sep="\n", file=sys.stderr)
            raise
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                print(f"\n--- the end of {log.name}", *_tail(log), sep="\n", file=sys.stderr)
                raise InstallationError(f"{argv[0]} did not stop in {STOP_S:.0f} s") from None

    def until(self, process: subprocess.Popen[bytes], *argv: str, said: str = "") -> None:
        """Ask until a command succeeds, and says `said`, while the service lives."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise InstallationError(f"the service ended with {process.returncode}")
            ended = self.run(*argv)
            if ended.returncode == 0 and said in ended.stdout:
                return
        raise InstallationError(f"not within {START_S:.0f} s: {' '.join(argv)} {said}")

    def until_listening(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Wait until a service takes connections; much cheaper than to ask it with a command."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise InstallationError(f"the service ended with {process.returncode}")
            with suppress(ConnectionRefusedError), socket.create_connection((ADDRESS, port)):
                return
            time.sleep(0.02)
        raise InstallationError(f"not within {START_S:.0f} s: a service on port {port}")

    @contextmanager
    def enrolled(self, tenant: str = "acme") -> Iterator[None]:
        """A running controller with this machine enrolled and linked."""
        link, enroll = free_ports(2)
        self.must(
            "stead", "controller", "init", "--name", ADDRESS,
            "--listen", f"{ADDRESS}:{link}", "--enroll-listen", f"{ADDRESS}:{enroll}",
        )  # fmt: skip
        with self.service("stead", "controller", "serve") as controller:
            self.until_listening(controller, link)
            self.must("stead", "tenant", "add", tenant)
            token = self.must("stead", "token", "new", "--tenant", tenant)
            self.must("stead-agent", "enroll", "--token", "-", stdin=token)
            with self.service("stead-agent", "run") as agent:
                self.until(agent, *LINKED, said='"linked": true')
                yield


LINKED = ("stead", "machine", "ls", "--output", "json")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((ADDRESS, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _tail(log: Path, lines: int = 15) -> Sequence[str]:
    return log.read_text(errors="replace").splitlines()[-lines:]
