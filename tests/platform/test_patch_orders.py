"""Updates by signed orders: what is typed, a real controller, a real agent, real packages.

The agent runs in a private system, which is patched from signed repositories on loopback.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.installation import ADDRESS, BIN, LINKED, Installation, free_ports
from tests.platform.private_system import PrivateSystem, private_system
from tests.unit.patching.private_apt import (
    Repository,
    make_repository,
    served,
    signing_key,
)

pytestmark = pytest.mark.root
STOP_S = 15.0
COMMAND_S = 60.0
NEEDS_RESTART = (
    "touch /run/reboot-required; echo $DPKG_MAINTSCRIPT_PACKAGE >> /run/reboot-required.pkgs"
)


@dataclass(slots=True)
class Asked:
    """A command that waits for a person's answer."""

    terminal: int
    process: subprocess.Popen[bytes]
    out: str = ""
    err: str = ""
    code: int = -1

    def until(self, question: str) -> None:
        """Read what it says until it asks."""
        assert self.process.stderr is not None
        while question not in self.err:
            piece = os.read(self.process.stderr.fileno(), 4096).decode()
            assert piece, self.err
            self.err += piece

    def agree(self) -> None:
        """Say yes, and wait for the end."""
        os.write(self.terminal, b"y\n")
        out, err = self.process.communicate(timeout=COMMAND_S)
        self.out, self.err = out.decode(), self.err + err.decode()
        self.code = self.process.returncode


@dataclass(frozen=True, slots=True)
class World:
    """A controller, an operator, and an agent that looks after the private system."""

    installation: Installation
    system: PrivateSystem
    main: Repository
    security: Repository
    machine: str
    unscanned: str

    def publish(self) -> None:
        """Offer what was put into the repositories."""
        self.main.publish()
        self.security.publish("stable-security", "Test-Security")

    def stead(
        self, *words: str, code: int = 0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """A command of the administrator's that ends with `code`."""
        done = self.installation.run("stead", *words, stdin=stdin)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def rows(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """The records that a command prints."""
        return list(json.loads(self.stead(*words, "-o", "json", code=code).stdout))

    def outcome(self, job: str = "latest") -> tuple[dict[str, Any], dict[str, Any]]:
        """The one task of a job, and the result that its machine signed."""
        shown = json.loads(self.stead("job", "show", job, "-o", "json").stdout)
        (task,) = shown["tasks"]
        return task, task["result"] or {}

    def seen(self, *words: str, columns: int) -> list[str]:
        """The lines that a person sees in a terminal of that width, styles left out."""
        leader, follower = pty.openpty()
        environment = self.installation.environment | {"COLUMNS": str(columns), "TERM": "xterm"}
        try:
            done = subprocess.run(
                [BIN / "stead", *words],
                stdin=subprocess.DEVNULL,
                stdout=follower,
                stderr=subprocess.PIPE,
                env=environment,
                timeout=COMMAND_S,
                check=False,
            )
        finally:
            os.close(follower)
        try:
            said = b""
            while piece := _read(leader):
                said += piece
        finally:
            os.close(leader)
        assert done.returncode == 0, (words, said, done.stderr)
        text = re.sub(rb"\x1b\[[0-9;]*m", b"", said).decode()
        return [line.rstrip() for line in text.splitlines()]

    @contextmanager
    def asked(self, *words: str) -> Iterator[Asked]:
        """A command at a terminal, from when it asks until it ends."""
        leader, follower = pty.openpty()
        try:
            with subprocess.Popen(
                [BIN / "stead", *words],
                stdin=follower,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.installation.environment,
            ) as process:
                asked = Asked(leader, process)
                asked.until("[y/N]")
                yield asked
        finally:
            os.close(leader)
            os.close(follower)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other side was closed
        return b""


def real_system() -> dict[str, str]:
    """What must not change outside: package database, apt's lists and settings, flags."""
    found = {"restart": str(Path("/run/reboot-required").exists())}
    for folder in ("/etc/apt", "/var/lib/apt/extended_states", "/var/lib/dpkg/status"):
        path = Path(folder)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    lists = Path("/var/lib/apt/lists")
    found["lists"] = ",".join(sorted(path.name for path in lists.rglob("*")))
    return found


@contextmanager
def running_agent(system: PrivateSystem, log: Path) -> Iterator[None]:
    """`stead-agent run` in the private system."""
    with log.open("ab") as said:
        agent = subprocess.Popen(
            system.argv("stead-agent", "run"), stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        yield
    except BaseException:
        print(log.read_text())
        raise
    finally:
        agent.terminate()
        try:
            assert agent.wait(STOP_S) == 0, log.read_text()
        finally:
            agent.kill()
            agent.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    before = real_system()
    place = tmp_path_factory.mktemp("patched")
    installation = Installation(place / "home")
    for folder in (installation.home, place / "system"):
        folder.mkdir()
    with ExitStack() as stack:
        system = stack.enter_context(private_system(place / "system"))
        gnupg = stack.enter_context(signing_key())
        main = make_repository(place / "main", gnupg)
        security = make_repository(place / "security", gnupg)
        system.offer(*((made, stack.enter_context(served(made))) for made in (main, security)))
        link, enroll = free_ports(2)
        installation.must(
            "stead", "controller", "init", "--name", ADDRESS,
            "--listen", f"{ADDRESS}:{link}", "--enroll-listen", f"{ADDRESS}:{enroll}",
        )  # fmt: skip
        controller = stack.enter_context(installation.service("stead", "controller", "serve"))
        installation.until(controller, "stead", "controller", "status")
        installation.must("stead", "tenant", "add", "acme")
        token = installation.must("stead", "token", "new", "--tenant", "acme").strip()
        system.call("stead-agent", "enroll", "--token", token)
        stack.enter_context(running_agent(system, place / "agent.log"))
        installation.until(controller, *LINKED, said='"linked": true')
        (row,) = json.loads(installation.must(*LINKED))
        unscanned = installation.run("stead", "patch", "ls", "all").stderr
        yield World(installation, system, main, security, row["name"], unscanned)
    assert real_system() == before


@pytest.fixture
def world(running: World) -> Iterator[World]:
    """The same world for every test, without the packages of the one before."""
    yield running
    running.system.clear()


def test_a_machine_that_was_never_scanned_is_not_said_to_be_up_to_date(world: World) -> None:
    assert f"{world.machine} was never scanned" in world.unscanned
    assert "nothing is on offer" not in world.unscanned


def test_a_signed_order_installs_exactly_what_was_shown(world: World) -> None:
    world.main.put("alloy", "3.0.15-1~deb12u1")
    world.main.put("bronze", "1.0")
    world.publish()
    world.system.install("alloy", "bronze")
    world.main.put("bronze", "2.0")
    world.main.put("copper", "0.5")
    world.security.put(
        "alloy", "3.0.17-1~deb12u2", "Depends: copper", scripts={"postinst": NEEDS_RESTART}
    )
    world.publish()

    (found,) = world.rows("patch", "scan", "all")
    assert (found["updates"], found["security"], found["held"]) == (2, 1, 0)
    listed = world.rows("patch", "ls", "all")
    assert [(row["package"], row["security"]) for row in listed] == [
        ("alloy", True),
        ("bronze", False),
    ]
    assert world.seen("patch", "ls", "all", "--security", columns=100) == [
        "package  installed         candidate         security",
        "alloy    3.0.15-1~deb12u1  3.0.17-1~deb12u2  yes",
    ]

    planned = world.rows("patch", "plan", world.machine, "alloy")
    assert [(row["package"], row["change"], row["old"], row["new"]) for row in planned] == [
        ("alloy", "upgrade", "3.0.15-1~deb12u1", "3.0.17-1~deb12u2"),
        ("copper", "install", "", "0.5"),
    ]
    title, *table = world.seen("patch", "plan", world.machine, "alloy", columns=80)
    assert title.startswith(f"{world.machine}: 2 steps, ")
    assert title.endswith(f"plan {planned[0]['plan'][:16]}")
    assert table == [
        "package  change   old               new               reason",
        "alloy    upgrade  3.0.15-1~deb12u1  3.0.17-1~deb12u2  requested",
        "copper   install  –                 0.5               dependency of alloy",
    ]
    assert world.system.version("alloy") == "3.0.15-1~deb12u1"

    before = len(world.system.log())
    done = world.stead("patch", "apply", "all", "alloy", "--yes", "--reason", "DSA 1")
    assert "2 of 2 steps done" in done.stdout
    assert f"{world.machine}: a restart is needed: alloy asks for it" in done.stderr
    task, result = world.outcome()
    assert (task["state"], result["plan_digest"]) == ("succeeded", planned[0]["plan"])
    assert [(step["name"], step["new"]) for step in result["applied"]] == [
        ("alloy", "3.0.17-1~deb12u2"),
        ("copper", "0.5"),
    ]
    assert result["reboot"] == {"needed": True, "reasons": ["alloy asks for it"]}
    versions = [world.system.version(name) for name in ("alloy", "bronze", "copper")]
    assert versions == ["3.0.17-1~deb12u2", "1.0", "0.5"]
    touched = re.findall(r" (?:install|upgrade|remove) (\S+) ", world.system.log()[before:])
    assert sorted(touched) == ["alloy:all", "copper:all"]

    assert world.rows("patch", "scan", "all")[0]["security"] == 0
    assert world.stead("patch", "ls", "all", "--security").stdout == ""


def test_what_changed_between_looking_and_agreeing_is_refused_by_name(world: World) -> None:
    world.main.put("delta", "1.0")
    world.publish()
    world.system.install("delta")
    world.main.put("delta", "2.0")
    world.publish()
    world.system.refresh()
    with world.asked("patch", "apply", world.machine, "delta") as applying:
        world.main.put("delta", "2.1")
        world.publish()
        world.system.refresh()
        applying.agree()
    assert "delta    upgrade  1.0  2.0  requested" in applying.out
    assert "upgrade delta:all 1.0 -> 2.0: became upgrade delta:all 1.0 -> 2.1" in applying.err
    assert "no package was changed" in applying.err
    assert applying.code == 1
    task, result = world.outcome()
    assert (task["state"], task["code"], result) == ("failed", "precondition", {})
    assert world.system.version("delta") == "1.0"
    world.stead("patch", "apply", world.machine, "delta", "--yes")
    assert world.system.version("delta") == "2.1"


def test_a_failing_script_is_named_with_its_status_and_what_it_said(world: World) -> None:
    world.main.put("ember", "1.0")
    world.main.put("flint", "1.0")
    world.publish()
    world.system.install("ember", "flint")
    world.main.put("ember", "2.0", scripts={"postinst": "echo no sparks >&2; exit 7"})
    world.main.put("flint", "2.0")
    world.publish()
    world.system.refresh()
    done = world.stead("patch", "apply", "all", "ember", "flint", "--yes", code=3)
    assert "1 of 2 steps done" in done.stdout
    assert "returned error exit status 7" in done.stdout
    assert "no sparks" in done.stderr
    task, result = world.outcome()
    assert (task["state"], task["code"]) == ("partial", "precondition")
    assert [step["name"] for step in result["applied"]] == ["flint"]
    (failed,) = result["failed"]
    assert (failed["step"]["name"], failed["state"]) == ("ember", "half-configured")
    assert not result["reboot"]["needed"]
    assert world.system.state("ember") == "half-configured"

    # It has the newest version, and still the machine does not read as a good one.
    (held,) = world.rows("patch", "ls", "all")
    assert "dpkg --configure -a" in held["held"]
    for command in (("plan", world.machine), ("apply", "all", "--yes")):
        refused = world.stead("patch", *command, code=1)
        assert "ember is half-configured; run `dpkg --configure -a` first" in refused.stderr


def test_what_was_cut_short_is_not_said_to_have_changed_nothing(world: World) -> None:
    world.main.put("fjord", "1.0")
    world.publish()
    world.system.install("fjord")
    world.main.put("fjord", "2.0", scripts={"postinst": "sleep 600"})
    world.publish()
    world.system.refresh()
    for limit in ("2s", "30s"):
        words = ("patch", "apply", "all", "fjord", "--yes", "--timeout", limit)
        done = world.stead(*words, code=1)
        # A loaded machine may not have begun by then: it has nothing to say of how far it came.
        if "how far it came is not known" in done.stderr:
            break
    assert "timed_out" in done.stderr
    assert "no package was changed" not in done.stderr
    assert f"how far it came is not known; `stead patch scan {world.machine}`" in done.stderr


def test_what_would_remove_a_package_is_refused_with_a_step_that_there_is(world: World) -> None:
    world.main.put("inlet", "1.0")
    world.main.put("jetty", "1.0")
    world.publish()
    world.system.install("inlet", "jetty")
    world.main.put("jetty", "2.0", "Conflicts: inlet")
    world.publish()
    world.system.refresh()
    refused = world.stead("patch", "plan", world.machine, "jetty", code=1)
    assert "would remove inlet, which no order does" in refused.stderr


def test_what_is_not_signed_or_does_not_match_its_signature_is_refused(world: World) -> None:
    world.main.put("gravel", "1.0")
    world.publish()
    world.system.install("gravel")
    archive = world.main.put("gravel", "2.0")
    world.publish()
    world.rows("patch", "scan", "all")
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    done = world.stead("patch", "apply", "all", "gravel", "--yes", code=1)
    assert "cannot be trusted" in done.stderr
    assert world.outcome()[0]["code"] == "bad_signature"
    assert world.system.version("gravel") == "1.0"

    world.main.put("gravel", "3.0")
    world.publish()
    (world.main.folder / "InRelease").unlink()
    done = world.stead("patch", "scan", "all", code=1)
    assert "no longer signed; nothing was taken from it" in done.stderr
    assert world.outcome()[0]["code"] == "bad_signature"
    (row,) = world.rows("patch", "ls", "all")
    assert row["candidate"] == "2.0"


def test_a_help_desk_may_look_and_plan_and_nothing_more(world: World) -> None:
    world.main.put("humus", "1.0")
    world.publish()
    world.system.install("humus")
    world.main.put("humus", "2.0")
    world.publish()
    desk = str(world.installation.home / "desk")
    world.stead("operator", "add", "eve", "--role", "helpdesk", "--tenant", "acme", "--to", desk)
    assert world.rows("--home", desk, "patch", "scan", "all")[0]["updates"] >= 1
    (step,) = world.rows("--home", desk, "patch", "plan", world.machine, "humus")
    assert (step["old"], step["new"]) == ("1.0", "2.0")
    jobs = world.rows("job", "ls")
    refused = world.stead("--home", desk, "patch", "apply", "all", "humus", "--yes", code=4)
    assert "helpdesk" in refused.stderr
    # The plan that was shown before is the only order that came of it.
    assert len(world.rows("job", "ls")) == len(jobs) + 1
    assert world.system.version("humus") == "1.0"
