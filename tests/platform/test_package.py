"""The built agent against a real controller, and the Debian package against the real dpkg."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PyInstaller.archive.readers import CArchiveReader

from agent.host.lock import holder_of
from protocol.action import Action, CollectInventory, RunBackup, RunProgram
from protocol.v1 import job_pb2, operator_pb2
from protocol.v1.operator_pb2_grpc import MachineServiceStub
from tests.integration.agent_process import ended_job, printed, token_text
from tests.integration.conftest import Installation, install
from tests.integration.test_link import enveloped, order_for, submit
from tests.platform.built_agent import ROOT, Built, BuiltAgent, build

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="not run: packages are for Linux"),
    # The first of them builds, which takes 20 s on two free cores.
    pytest.mark.timeout(300),
]

WANTED = "etc/systemd/system/multi-user.target.wants/stead-agent.service"
MASK = "etc/systemd/system/stead-agent.service"
STATE = "var/lib/stead/agent"


@pytest.fixture(scope="session")
def built() -> Built:
    return build()


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    running = await install(tmp_path / "home")
    yield running
    await running.close()


@pytest.fixture
async def agent(
    built: Built, installation: Installation, tmp_path: Path
) -> AsyncIterator[BuiltAgent]:
    """The built program, enrolled, running and connected."""
    running = BuiltAgent(tmp_path / "machine", built.program)
    await running.enroll(await token_text(installation, await installation.add_tenant()))
    await running.start()
    try:
        await running.until_status(link="connected")
        yield running
    finally:
        if running.alive:
            await running.stop(signal.SIGKILL)


async def ordered(
    installation: Installation, agent: BuiltAgent, action: Action
) -> job_pb2.GetJobResponse:
    """Order something of the agent; the answer when it is over."""
    order = order_for(agent.identity.tenant, action=action)
    order = replace(order, machines=(agent.identity.machine,))
    job = await submit(installation, enveloped(installation, order))
    return await ended_job(installation, job.job_id)


async def test_the_built_agent_enrolls_takes_an_inventory_and_stops_when_asked(
    installation: Installation, agent: BuiltAgent
) -> None:
    [task] = (await ordered(installation, agent, CollectInventory())).job.tasks
    assert task.state in {"succeeded", "partial"}, task.message
    answer = await MachineServiceStub(installation.admin()).GetInventory(
        operator_pb2.GetInventoryRequest(machine_id=agent.identity.machine)
    )
    sections = {section.name: json.loads(section.body) for section in answer.sections}
    assert {"system", "packages", "network", "services"} <= sections.keys()
    assert sections["system"]["status"] == "ok", sections["system"]
    assert await agent.stop() == 0
    assert agent.events()[-1]["event"] == "agent_stopped"


async def test_the_built_agent_cuts_with_the_compiled_chunker(
    installation: Installation, agent: BuiltAgent, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(3_000_000))
    answer = await ordered(installation, agent, RunBackup((os.fsencode(folder),)))
    [task] = answer.job.tasks
    assert task.state == "succeeded", task.message


async def test_what_the_built_agent_starts_gets_the_systems_libraries(
    installation: Installation, agent: BuiltAgent
) -> None:
    answer = await ordered(installation, agent, RunProgram(("env",)))
    assert answer.job.tasks[0].state == "succeeded"
    names = {line.partition(b"=")[0] for line in printed(answer).splitlines()}
    assert b"PATH" in names
    assert not {name for name in names if name.startswith((b"LD_", b"_PYI", b"PYTHON"))}


async def test_the_built_agent_begins_anew_when_it_is_replaced(
    built: Built, installation: Installation, tmp_path: Path
) -> None:
    folder = tmp_path / "installed"
    shutil.copytree(built.folder, folder, symlinks=True)
    agent = BuiltAgent(tmp_path / "machine", folder / "stead-agent")
    await agent.enroll(await token_text(installation, await installation.add_tenant()))
    await agent.start()
    try:
        await agent.until_status(link="connected")
        process = holder_of(agent.home.lock)
        # As dpkg does: each file is another one under its name.
        for name in ("stead-launch", "stead-agent"):
            shutil.copy2(folder / name, folder / f"{name}.dpkg-new")
            (folder / f"{name}.dpkg-new").replace(folder / name)
        await agent.until(lambda: "agent_begins_anew" in agent.log.read_text() or None)
        await agent.until(
            lambda: len([e for e in agent.events() if e["event"] == "link_connected"]) > 1 or None
        )
        assert holder_of(agent.home.lock) == process
        answer = await ordered(installation, agent, CollectInventory(("cpu",)))
        assert answer.job.tasks[0].state == "succeeded", answer.job.tasks[0].message
        answer = await ordered(installation, agent, RunProgram(("env",)))
        names = {line.partition(b"=")[0] for line in printed(answer).splitlines()}
        assert not {name for name in names if name.startswith((b"LD_", b"PYI", b"_PYI"))}
        assert await agent.stop() == 0
    finally:
        if agent.alive:
            await agent.stop(signal.SIGKILL)


def test_the_bundle_holds_the_whole_agent_and_nothing_of_the_controller(built: Built) -> None:
    program = CArchiveReader(str(built.program)).open_embedded_archive("PYZ.pyz")
    for side in ("agent", "protocol"):
        for path in (ROOT / side).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            assert module.removesuffix(".__init__") in program.toc
    bundled = {name.partition(".")[0] for name in program.toc}
    foreign = {"controller", "rich", "sqlalchemy", "grpc_tools", "pytest", "setuptools", "tkinter"}
    assert bundled & foreign == set()


def test_no_library_looks_for_others_outside_the_bundle(built: Built) -> None:
    libraries = [path for path in built.folder.rglob("*.so*") if not path.is_symlink()]
    assert len(libraries) > 20
    asked = ["objdump", "--private-headers", *map(str, libraries)]
    headers = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    places = [
        place
        for line in headers.splitlines()
        if line.split()[:1] in (["RPATH"], ["RUNPATH"])
        for place in line.split()[1].split(":")
    ]
    assert [place for place in places if not place.startswith("$ORIGIN")] == []


def test_the_version_is_the_same_in_the_project_the_program_and_the_package(built: Built) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    program = subprocess.run([built.program, "version"], capture_output=True, text=True, check=True)
    asked = ["dpkg-deb", "--field", str(built.package), "Version"]
    package = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert {project, program.stdout.strip(), package.stdout.strip()} == {project}


@dataclass(frozen=True)
class PrivateRoot:
    """A machine's file system for the real dpkg; the package's scripts work in it."""

    path: Path

    def dpkg(self, *words: str | Path) -> None:
        command = [
            "dpkg", f"--root={self.path}", "--force-not-root", "--force-script-chrootless",
            "--force-depends", "--force-bad-path", *map(str, words),
        ]  # fmt: skip
        # The mask is what an administrator's session may have; the package must not care.
        ended = subprocess.run(command, capture_output=True, text=True, umask=0o027)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def holds(self, name: str) -> bool:
        return os.path.lexists(self.path / name)


@pytest.fixture
def root(tmp_path: Path) -> PrivateRoot:
    database = tmp_path / "root" / "var" / "lib" / "dpkg"
    for name in ("info", "updates", "triggers"):
        (database / name).mkdir(parents=True)
    for name in ("status", "available"):
        (database / name).touch()
    return PrivateRoot(tmp_path / "root")


@pytest.mark.root
def test_the_package_is_installed_upgraded_removed_and_purged(
    built: Built, root: PrivateRoot
) -> None:
    if os.geteuid() != 0:
        pytest.skip("not run: the files of a package belong to root")
    root.dpkg("--install", built.package)
    state = root.path / STATE
    assert (state.stat().st_mode & 0o7777, state.stat().st_uid) == (0o700, 0)
    assert (root.path / "usr/bin/stead-agent").resolve() == (
        root.path / "usr/lib/stead-agent/stead-agent"
    )
    assert not root.holds(WANTED), "a machine that is not enrolled has nothing to start"

    (state / "agent.toml").write_text("")
    (root.path / WANTED).parent.mkdir(parents=True)
    (root.path / WANTED).symlink_to("/usr/lib/systemd/system/stead-agent.service")
    root.dpkg("--install", built.package)
    assert root.holds(WANTED), "an upgrade leaves an enabled service enabled"

    root.dpkg("--remove", "stead-agent")
    assert not root.holds("usr/bin/stead-agent")
    assert root.holds(MASK)
    assert (state / "agent.toml").exists(), "a removed agent may come back as the same machine"

    root.dpkg("--install", built.package)
    assert root.holds(WANTED)
    assert not root.holds(MASK)

    root.dpkg("--purge", "stead-agent")
    assert not root.holds("var/lib/stead")
    assert not root.holds(WANTED)


@pytest.mark.root
def test_the_package_leaves_a_controllers_state_alone(built: Built, root: PrivateRoot) -> None:
    if os.geteuid() != 0:
        pytest.skip("not run: the files of a package belong to root")
    database = root.path / "var/lib/stead/controller/stead.db"
    database.parent.mkdir(parents=True)
    database.touch()
    root.dpkg("--install", built.package)
    root.dpkg("--purge", "stead-agent")
    assert database.exists()


@pytest.mark.root
def test_the_service_of_an_enrolled_machine_is_enabled_and_a_disabled_one_stays_so(
    built: Built, root: PrivateRoot
) -> None:
    if os.geteuid() != 0:
        pytest.skip("not run: the files of a package belong to root")
    enrolled = root.path / STATE / "agent.toml"
    enrolled.parent.mkdir(parents=True)
    enrolled.touch()
    root.dpkg("--install", built.package)
    assert root.holds(WANTED)
    (root.path / WANTED).unlink()
    root.dpkg("--install", built.package)
    assert not root.holds(WANTED)


def test_systemd_accepts_the_service_and_nothing_closed_was_opened(
    built: Built, tmp_path: Path
) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("not run: needs systemd-analyze")
    text = (ROOT / "packaging" / "linux" / "stead-agent.service").read_text()
    unit = tmp_path / "stead-agent.service"
    unit.write_text(text.replace("/usr/bin/stead-agent", str(built.program)))
    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    ended = subprocess.run(verify, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    rate = ["systemd-analyze", "security", "--offline=true", "--threshold=89", str(unit)]
    ended = subprocess.run(rate, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-200:]
