"""Put one large file on a machine and get it back, beside programs that only copy.

    python -m bench.parcels [--mib 1024] [--rounds 3]

`stead file put` and `get` are the whole commands, between a controller and an agent in
processes of their own, over mutual TLS on loopback. Every byte goes over TLS twice, is
sealed once and opened once, is written and synced twice, and is hashed at both ends.
Beside them, in turn: `cp` with `sync` and `sha256sum`; and the same two ways without the
sealing: curl over TLS from `openssl s_server`, twice, each time with `sync` and
`sha256sum`. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path

MIB = 1024 * 1024
STEAD = (sys.executable, "-c", "from controller.cli.main import main; main()")
AGENT = (sys.executable, "-m", "agent.cli")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        took = _measure(Path(directory), asked.mib, asked.rounds)
    print(f"| {asked.mib} MiB, {asked.rounds} rounds | median | MiB/s | fastest | processor |")
    print("|---|---:|---:|---:|---:|")
    for name, rounds in took.items():
        seconds, used = ([one[i] for one in rounds] for i in (0, 1))
        median, cpu = statistics.median(seconds), statistics.median(used)
        rate = asked.mib / median
        print(f"| {name} | {median:.1f} s | {rate:.0f} | {min(seconds):.1f} s | {cpu:.1f} s |")
    print(f"\nload of the machine: {os.getloadavg()[0]:.1f}")


def _measure(directory: Path, mib: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    source, there, back = (directory / name for name in ("source", "there", "back"))
    with (
        _served_by_openssl(directory) as (url, curl, server),
        _stead(directory) as (stead, daemons),
    ):

        def twice() -> None:
            _copied([*curl, "-o", str(there), f"{url}/{source.name}"], there)
            _copied([*curl, "-o", str(back), f"{url}/{there.name}"], back)

        ways: dict[str, Callable[[], None]] = {
            "stead file put": lambda: stead("file", "put", "all", str(source), str(there)),
            "stead file get": lambda: stead("file", "get", "all", str(there), str(back)),
            "cp, sync, sha256sum": lambda: _copied(["cp", str(source), str(back)], back),
            "curl, sync, sha256sum, twice": twice,
        }
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            with source.open("wb") as file:
                for _ in range(mib):
                    file.write(os.urandom(MIB))
            for name, act in ways.items():
                os.sync()
                began, used = time.perf_counter(), _cpu_s(server, *daemons)
                act()
                seconds = time.perf_counter() - began, _cpu_s(server, *daemons) - used
                took[name].append(seconds)
                print(f"{name}: {seconds[0]:.1f} s", file=sys.stderr)
                for made in (there, back):
                    if made.exists() and _digest(made) != _digest(source):
                        raise RuntimeError(f"{name} made another file")
                if name != "stead file put":
                    there.unlink(missing_ok=True)
                    back.unlink(missing_ok=True)
    return took


def _cpu_s(*daemons: int) -> float:
    """Processor time of all programs that ended, and of those that run with their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = used.ru_utime + used.ru_stime
    for pid in daemons:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return file_digest(file, "sha256").digest()


def _copied(argv: list[str], made: Path) -> None:
    for step in (argv, ["sync", str(made)], ["sha256sum", str(made)]):
        subprocess.run(step, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _served_by_openssl(directory: Path) -> Iterator[tuple[str, list[str], int]]:
    """The address of a server of the directory's files, how to ask it, and its process."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-days", "1"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", "-WWW", "-key", key,
         "-cert", certificate],
        cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        port = next(
            int(found[1])
            for line in server.stdout
            if (found := re.match(rb"ACCEPT .*:(\d+)", line))
        )
        curl = ["curl", "-sS", "--fail", "--noproxy", "*", "--cacert", str(certificate)]
        yield f"https://localhost:{port}", curl, server.pid
    finally:
        server.terminate()
        server.wait()


@contextmanager
def _stead(directory: Path) -> Iterator[tuple[Callable[..., None], tuple[int, int]]]:
    """A controller and an agent that run; gives what types a command, and their processes."""
    home = directory / "home"

    def typed(*words: str, stdin: bytes = b"") -> bytes:
        argv = [*STEAD, "--home", str(home), *words]
        return subprocess.run(argv, input=stdin, check=True, stdout=subprocess.PIPE).stdout

    ports = ("--listen", "127.0.0.1:0", "--enroll-listen", "127.0.0.1:0")
    typed("controller", "init", "--name", "127.0.0.1", *ports)
    with (directory / "log").open("wb") as log:
        serve = [*STEAD, "--home", str(home), "controller", "serve"]
        controller = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=log)
        agent: subprocess.Popen[bytes] | None = None
        try:
            assert controller.stdout is not None
            address = controller.stdout.readline().decode().split()[1]
            (home / "operator" / "config.toml").write_text(f'address = "{address}"\n')
            typed("tenant", "add", "acme")
            token = typed("token", "new", "--tenant", "acme")
            argv = [*AGENT, "--home", str(directory / "machine")]
            enrolled = [*argv, "enroll", "--token", "-"]
            subprocess.run(enrolled, input=token, check=True, stdout=subprocess.DEVNULL)
            agent = subprocess.Popen([*argv, "run"], stderr=log)
            typed("run", "all", "--", "true")

            def act(*words: str) -> None:
                print(typed(*words).decode(), end="", file=sys.stderr)

            yield act, (controller.pid, agent.pid)
        finally:
            for process in filter(None, (agent, controller)):
                process.send_signal(signal.SIGTERM)
                process.wait()


if __name__ == "__main__":
    main()
