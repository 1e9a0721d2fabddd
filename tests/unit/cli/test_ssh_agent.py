"""Keys that a real ssh-agent holds."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from controller.cli.operator.ssh_agent import choose_key, held_keys, sign_by_agent
from protocol.errors import Code, InvalidError, SteadError

NEEDS_SSH_AGENT = pytest.mark.skipif(
    shutil.which("ssh-agent") is None, reason="not run: ssh-agent is not installed"
)


@dataclass
class SshAgent:
    """An ssh-agent of the test's own."""

    directory: Path
    socket: str
    process: int

    def add(self, *kind: str, comment: str = "ann@laptop") -> None:
        """Make a key of a kind and have the agent hold it."""
        file = self.directory / f"key-{len(list(self.directory.iterdir()))}"
        make = ["ssh-keygen", "-q", "-N", "", "-C", comment, "-f", str(file), *kind]
        subprocess.run(make, check=True, capture_output=True)
        self.run("ssh-add", str(file))

    def run(self, *argv: str) -> None:
        env = {**os.environ, "SSH_AUTH_SOCK": self.socket}
        subprocess.run(argv, check=True, capture_output=True, env=env)

    def end(self) -> None:
        os.kill(self.process, signal.SIGTERM)


def start_agent(directory: Path) -> SshAgent:
    # Its socket's path must be short, which a test's directory may not be.
    # And it must not ask whoever sits before a screen.
    asking = {"DISPLAY", "WAYLAND_DISPLAY", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE"}
    env = {name: value for name, value in os.environ.items() if name not in asking}
    done = subprocess.run(["ssh-agent", "-s"], check=True, capture_output=True, env=env)
    said = done.stdout.decode()
    values = dict(part.split("=", 1) for part in said.split(";") if "=" in part)
    values = {name.strip(): value for name, value in values.items()}
    return SshAgent(directory, values["SSH_AUTH_SOCK"], int(values["SSH_AGENT_PID"]))


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshAgent]:
    directory = tmp_path / "ssh"
    directory.mkdir()
    running = start_agent(directory)
    monkeypatch.setenv("SSH_AUTH_SOCK", running.socket)
    yield running
    running.end()


P256 = ("-t", "ecdsa", "-b", "256")


@NEEDS_SSH_AGENT
def test_what_the_agent_signs_is_the_key_s_signature(agent: SshAgent) -> None:
    agent.add(*P256)
    key = choose_key("").public_key()
    for data in (b"", b"stead order v1\0" + bytes(32), bytes(100_000)):
        key.verify(sign_by_agent(key, data), data, ec.ECDSA(SHA256()))


@NEEDS_SSH_AGENT
def test_the_key_is_chosen_by_comment_or_fingerprint_among_those_that_will_do(
    agent: SshAgent,
) -> None:
    agent.add("-t", "ed25519")
    agent.add("-t", "ecdsa", "-b", "384")
    with pytest.raises(SteadError, match="ssh-keygen -t ecdsa -b 256") as caught:
        choose_key("")
    assert caught.value.code is Code.PRECONDITION
    agent.add(*P256, comment="first")
    agent.add(*P256, comment="second")
    with pytest.raises(InvalidError, match="several"):
        choose_key("")
    second = choose_key("second")
    assert choose_key(second.fingerprint) == second
    listed = subprocess.run(["ssh-add", "-l"], capture_output=True, check=True).stdout.decode()
    assert all(key.fingerprint in listed for key in held_keys())
    with pytest.raises(SteadError, match="holds no"):
        choose_key("third")


@NEEDS_SSH_AGENT
def test_a_key_that_the_agent_has_not_got_signs_nothing(agent: SshAgent) -> None:
    agent.add(*P256)
    key = choose_key("").public_key()
    agent.run("ssh-add", "-D")
    with pytest.raises(SteadError, match="does not hold the key") as caught:
        sign_by_agent(key, b"data")
    assert caught.value.code is Code.PRECONDITION


@NEEDS_SSH_AGENT
def test_an_agent_that_will_not_sign_is_said_to(agent: SshAgent) -> None:
    agent.add(*P256)
    key = choose_key("").public_key()
    agent.run("ssh-add", "-D")
    # One that asks a person, and nobody is there.
    file = next(path for path in agent.directory.iterdir() if path.suffix == "")
    subprocess.run(
        ["ssh-add", "-c", str(file)],
        check=True,
        capture_output=True,
        env={**os.environ, "SSH_AUTH_SOCK": agent.socket},
    )
    with pytest.raises(SteadError, match="did not sign: the ssh-agent refused"):
        sign_by_agent(key, b"data")


def test_without_an_agent_the_next_step_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(SteadError, match="ssh-add"):
        held_keys()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nothing"))
    with pytest.raises(SteadError, match="does not answer"):
        held_keys()


@pytest.mark.parametrize("said", [b"", b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x05\x0c\0\0\0\x09"])
def test_whatever_answers_instead_of_an_agent_is_refused(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{short}/s")
        server.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", f"{short}/s")

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SteadError):
            held_keys()
        thread.join()
