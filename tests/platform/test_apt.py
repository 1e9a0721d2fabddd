"""The real apt and dpkg in a private root, where they are hurt in every way they know."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from agent.host.process import Finished, run
from agent.patching.apply import apply_plan
from agent.patching.errors import (
    DiskFullError,
    PackagesInterruptedError,
    PackagesLockedError,
    PlanChangedError,
    RepositoryUnreachableError,
    RepositoryUntrustedError,
)
from agent.patching.managers.apt import Apt
from agent.patching.plan import Change, render_plan
from protocol.errors import Code, InvalidError
from tests.unit.patching.private_apt import (
    PrivateMachine,
    call,
    make_repository,
    private_machine,
    served,
    signing_key,
)

HOLD_LOCK = """
import fcntl, sys
held = open(sys.argv[1], "w")
fcntl.lockf(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[PrivateMachine]:
    with private_machine(tmp_path) as made:
        yield made


@pytest.fixture
def online(machine: PrivateMachine) -> Iterator[PrivateMachine]:
    """The machine with its repository behind HTTP."""
    with served(machine.main) as address:
        (machine.path / "etc/apt/sources.list").write_text(machine.main.line(address))
        yield machine


def offer_update(machine: PrivateMachine) -> None:
    machine.main.put("alpha", "1.0")
    machine.main.publish()
    machine.install("alpha")
    machine.main.put("alpha", "2.0")
    machine.main.publish()
    machine.apt.refresh()


def test_nothing_outside_the_root_is_touched(machine: PrivateMachine) -> None:
    outside = Path("/var/lib/dpkg/status")
    before = outside.read_bytes() if outside.exists() else b""
    offer_update(machine)
    assert apply_plan(machine.apt, machine.apt.plan(None)).succeeded
    assert (outside.read_bytes() if outside.exists() else b"") == before
    assert b"upgrade alpha" in (machine.path / "var/log/dpkg.log").read_bytes()


def test_output_is_passed_on_while_it_comes_and_its_tail_is_kept(machine: PrivateMachine) -> None:
    offer_update(machine)
    result = apply_plan(machine.apt, machine.apt.plan(None))
    assert b"Setting up alpha (2.0)" in machine.output
    assert "Setting up alpha (2.0)" in result.log_tail


def test_dry_run_shows_the_plan_that_an_order_names(machine: PrivateMachine) -> None:
    offer_update(machine)
    plan = machine.apt.plan(None)
    shown = render_plan(plan)
    assert plan.digest() in shown
    assert "upgrade alpha:all 1.0 -> 2.0" in shown


def test_a_planned_version_that_is_no_longer_on_offer_is_refused(machine: PrivateMachine) -> None:
    offer_update(machine)
    plan = machine.apt.plan(None)
    (machine.main.folder / "alpha_2.0_all.deb").unlink()
    machine.main.put("alpha", "2.1")
    machine.main.publish()
    machine.apt.refresh()
    with pytest.raises(PlanChangedError, match=r"2\.0.*was not found"):
        machine.apt.apply(plan)
    with pytest.raises(PlanChangedError, match=r"1\.0 -> 2\.0: became .*1\.0 -> 2\.1"):
        apply_plan(machine.apt, plan)
    assert machine.version("alpha") == "1.0"


def test_packages_that_came_as_dependencies_stay_marked_so(machine: PrivateMachine) -> None:
    machine.main.put("alpha", "1.0")
    machine.main.put("beta", "1.0", "Depends: alpha")
    machine.main.publish()
    machine.install("beta")
    machine.main.put("gamma", "1.0")
    machine.main.put("alpha", "2.0", "Depends: gamma")
    machine.main.put("beta", "2.0", "Depends: alpha")
    machine.main.publish()
    machine.apt.refresh()
    assert apply_plan(machine.apt, machine.apt.plan(None)).succeeded
    assert machine.call("apt-mark", "showauto").split() == [b"alpha", b"gamma"]


def test_a_security_fix_counts_even_when_a_later_version_without_one_supersedes_it(
    machine: PrivateMachine, tmp_path: Path
) -> None:
    security = make_repository(tmp_path / "security", machine.main.gnupg)
    machine.trust(machine.main, security)
    machine.main.put("alpha", "1.0")
    machine.main.publish()
    security.publish("stable-security", "Test-Security")
    machine.install("alpha")
    security.put("alpha", "1.1")
    security.publish("stable-security", "Test-Security")
    machine.main.put("alpha", "1.2", "Source: alphasrc")
    machine.main.publish()
    machine.apt.refresh()
    (update,) = machine.apt.scan().updates
    assert (update.candidate, update.suite, update.security) == ("1.2", "stable", True)
    assert update.source == "alphasrc"


def test_an_update_that_does_not_fit_is_listed_as_held_back(machine: PrivateMachine) -> None:
    machine.main.put("alpha", "1.0")
    machine.main.publish()
    machine.install("alpha")
    machine.main.put("alpha", "2.0", "Depends: nowhere")
    machine.main.publish()
    machine.apt.refresh()
    scan = machine.apt.scan()
    assert scan.updates == ()
    assert [held.name for held in scan.held] == ["alpha"]
    assert "not on offer" in scan.held[0].reason


def test_a_changed_configuration_file_stays_and_is_reported(machine: PrivateMachine) -> None:
    machine.main.put("alpha", "1.0", conffiles={"etc/alpha.conf": "old\n"})
    machine.main.publish()
    machine.install("alpha")
    settings = machine.path / "etc/alpha.conf"
    settings.write_text("mine\n")
    machine.main.put("alpha", "2.0", conffiles={"etc/alpha.conf": "new\n"})
    machine.main.publish()
    machine.apt.refresh()
    result = apply_plan(machine.apt, machine.apt.plan(None))
    assert result.succeeded
    assert result.kept_conffiles == ("/etc/alpha.conf",)
    assert settings.read_text() == "mine\n"
    assert settings.with_suffix(".conf.dpkg-dist").read_text() == "new\n"


def test_a_signature_by_another_key_is_refused(online: PrivateMachine) -> None:
    offer_update(online)
    online.main.put("alpha", "3.0")
    with signing_key() as other:
        online.main.publish(key=other)
        with pytest.raises(RepositoryUntrustedError, match="NO_PUBKEY") as refused:
            online.apt.refresh()
    assert refused.value.code is Code.BAD_SIGNATURE
    assert online.apt.scan().updates[0].candidate == "2.0"


def test_a_repository_that_lost_its_signature_is_refused(online: PrivateMachine) -> None:
    offer_update(online)
    online.main.put("alpha", "3.0")
    online.main.publish()
    (online.main.folder / "InRelease").unlink()
    with pytest.raises(RepositoryUntrustedError, match="signed"):
        online.apt.refresh()
    assert online.apt.scan().updates[0].candidate == "2.0"


def test_an_index_that_does_not_match_its_signature_is_refused(online: PrivateMachine) -> None:
    offer_update(online)
    online.main.put("alpha", "3.0")
    online.main.publish()
    with (online.main.folder / "Packages").open("a") as index:
        index.write("\nPackage: evil\nVersion: 1\n")
    with pytest.raises(RepositoryUntrustedError):
        online.apt.refresh()


def test_an_archive_that_does_not_match_the_index_is_refused(online: PrivateMachine) -> None:
    offer_update(online)
    plan = online.apt.plan(None)
    archive = online.main.folder / "alpha_2.0_all.deb"
    content = bytearray(archive.read_bytes())
    content[-1] ^= 1
    archive.write_bytes(content)
    with pytest.raises(RepositoryUntrustedError):
        apply_plan(online.apt, plan)
    assert online.version("alpha") == "1.0"


def test_a_repository_that_vanished_is_named(machine: PrivateMachine) -> None:
    offer_update(machine)
    stamp = machine.apt.scan().refreshed_at
    machine.main.folder.rename(machine.main.folder.with_name("gone"))
    with pytest.raises(RepositoryUnreachableError, match="Release") as refused:
        machine.apt.refresh()
    assert refused.value.code is Code.UNAVAILABLE
    assert machine.apt.scan().refreshed_at == stamp


def test_an_archive_that_vanished_leaves_everything_as_it_was(online: PrivateMachine) -> None:
    offer_update(online)
    plan = online.apt.plan(None)
    (online.main.folder / "alpha_2.0_all.deb").unlink()
    with pytest.raises(RepositoryUnreachableError):
        apply_plan(online.apt, plan)
    assert online.version("alpha") == "1.0"
    online.apt.check_health()


def test_a_server_that_does_not_answer_is_unreachable(machine: PrivateMachine) -> None:
    with served(machine.main) as address:
        (machine.path / "etc/apt/sources.list").write_text(machine.main.line(address))
    with pytest.raises(RepositoryUnreachableError, match=address):
        machine.apt.refresh()


@pytest.mark.parametrize("lock", ["lib/dpkg/lock-frontend", "lib/dpkg/lock", "lib/apt/lists/lock"])
def test_a_lock_held_by_another_process_names_its_holder(
    machine: PrivateMachine, lock: str
) -> None:
    offer_update(machine)
    plan = machine.apt.plan(None)
    argv = [sys.executable, "-c", HOLD_LOCK, str(machine.path / "var" / lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        act = machine.apt.refresh if "lists" in lock else partial(apply_plan, machine.apt, plan)
        with pytest.raises(PackagesLockedError, match=str(holder.pid)) as refused:
            act()
        holder.stdin.close()
    assert refused.value.code is Code.LOCKED
    assert machine.version("alpha") == "1.0"
    assert apply_plan(machine.apt, plan).succeeded


def test_an_interrupted_dpkg_is_named_with_its_repair(machine: PrivateMachine) -> None:
    offer_update(machine)
    plan = machine.apt.plan(None)
    status = (machine.path / "var/lib/dpkg/status").read_text()
    entry = status.replace("install ok installed", "install ok unpacked")
    (machine.path / "var/lib/dpkg/updates/0001").write_text(entry)
    with pytest.raises(PackagesInterruptedError, match="dpkg --configure -a"):
        apply_plan(machine.apt, plan)
    assert machine.version("alpha") == "1.0"


@pytest.mark.parametrize("moment", ["preinst", "postinst"])
def test_a_killed_dpkg_is_reported_and_repaired_by_what_the_error_names(
    machine: PrivateMachine, moment: str
) -> None:
    machine.main.put("alpha", "1.0")
    machine.main.publish()
    machine.install("alpha")
    once = machine.path / "tmp/once"
    # The script kills dpkg, its parent, the first time only.
    script = f"test -e {once} && exit 0; touch {once}; kill -9 $PPID"
    machine.main.put("alpha", "2.0", scripts={moment: script})
    machine.main.publish()
    machine.apt.refresh()
    plan = machine.apt.plan(None)
    result = apply_plan(machine.apt, plan)
    assert not result.succeeded
    (failed,) = result.failed
    assert failed.state in {"half-installed", "half-configured", "unpacked"}
    assert result.problem
    with pytest.raises(PackagesInterruptedError, match="dpkg --configure -a"):
        machine.apt.check_health()
    dumped = machine.call("apt-config", "dump", "DPkg::Options").decode()
    options = [option for option in dumped.split('"')[1::2] if option]
    call("dpkg", *options, "--configure", "-a", env=machine.root.env)
    if moment == "postinst":
        machine.apt.check_health()
        assert machine.version("alpha") == "2.0"


def test_a_failing_script_is_reported_with_its_status_and_its_output(
    machine: PrivateMachine,
) -> None:
    machine.main.put("alpha", "1.0")
    machine.main.put("beta", "1.0")
    machine.main.publish()
    machine.install("alpha", "beta")
    machine.main.put("alpha", "2.0", scripts={"postinst": "echo boom >&2; exit 7"})
    machine.main.put("beta", "2.0", "Depends: alpha (>= 2.0)")
    machine.main.publish()
    machine.apt.refresh()
    result = apply_plan(machine.apt, machine.apt.plan(None))
    reasons = {failed.step.name: (failed.state, failed.reason) for failed in result.failed}
    assert reasons["alpha"][0] == "half-configured"
    assert "exit status 7" in reasons["alpha"][1]
    assert reasons["beta"][0] == "unpacked"
    assert "boom" in result.log_tail


def test_a_pinned_downgrade_is_planned_as_one_and_done(machine: PrivateMachine) -> None:
    machine.main.put("alpha", "2.0")
    machine.main.publish()
    machine.install("alpha")
    machine.main.put("alpha", "1.0")
    machine.main.publish()
    pin = "Package: alpha\nPin: version 1.0\nPin-Priority: 1001\n"
    (machine.path / "etc/apt/preferences").write_text(pin)
    machine.apt.refresh()
    plan = machine.apt.plan(None)
    assert [step.change for step in plan.steps] == [Change.DOWNGRADE]
    assert apply_plan(machine.apt, plan).succeeded
    assert machine.version("alpha") == "1.0"


@pytest.mark.parametrize("name", ["-oDir=/", "alpha-", "alpha=1", "al*", "alpha/stable", "", "A"])
def test_a_name_that_apt_would_read_as_something_else_is_refused(
    machine: PrivateMachine, name: str
) -> None:
    with pytest.raises(InvalidError):
        machine.apt.plan([name])


def test_a_machine_that_was_never_refreshed_says_so(machine: PrivateMachine) -> None:
    assert machine.apt.scan().refreshed_at is None


def unstreamed(
    *argv: str,
    stdin: bytes = b"",
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    on_output: Callable[[bytes], None] | None = None,
) -> Finished:
    """`run` with its output at the end only: what is judged here is the packages' state."""
    return run(*argv, stdin=stdin, timeout=timeout, env=env)


def test_a_program_that_hangs_is_ended_and_its_step_reported(
    machine: PrivateMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.main.put("alpha", "1.0")
    machine.main.publish()
    machine.install("alpha")
    machine.main.put("alpha", "2.0", scripts={"postinst": "sleep 600"})
    machine.main.publish()
    machine.apt.refresh()
    plan = machine.apt.plan(None)
    monkeypatch.setattr("agent.patching.managers.apt.APPLY_SECONDS", 2.0)
    result = apply_plan(Apt(run=unstreamed, root=machine.root), plan)
    assert "did not end within 2 s" in result.problem
    assert result.failed[0].state == "half-configured"


@pytest.mark.parametrize("program", ["dpkg-query", "apt-mark"])
def test_a_program_that_fails_after_the_transaction_does_not_lose_its_result(
    machine: PrivateMachine, program: str
) -> None:
    machine.main.put("alpha", "1.0")
    machine.main.put("beta", "1.0", "Depends: alpha")
    machine.main.publish()
    machine.install("beta")
    machine.main.put("alpha", "2.0")
    machine.main.publish()
    machine.apt.refresh()
    changed = False

    def fail_late(
        *argv: str,
        stdin: bytes = b"",
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> Finished:
        nonlocal changed
        if changed and argv[0] == program:
            return Finished(argv, 2, b"", b"the database broke\n")
        done = run(*argv, stdin=stdin, timeout=timeout, env=env, on_output=on_output)
        changed = changed or (argv[0] == "apt-get" and "-s" not in argv)
        return done

    result = apply_plan(Apt(run=fail_late, root=machine.root), machine.apt.plan(None))
    assert not result.succeeded
    assert "the database broke" in result.problem
    assert machine.version("alpha") == "2.0"
    states = [failed.state for failed in result.failed]
    assert states == (["unknown"] if program == "dpkg-query" else [])


@pytest.fixture
def cramped(online: PrivateMachine) -> Iterator[PrivateMachine]:
    """The machine with 16 KiB of room for archives."""
    if os.geteuid() != 0:
        pytest.skip("not run: needs root")
    archives = online.path / "var/cache/apt/archives"
    done = run("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(archives))
    if done.code != 0:
        pytest.skip(f"not run: cannot mount: {done.stderr.decode().strip()}")
    (archives / "partial").mkdir()
    try:
        yield online
    finally:
        run("umount", str(archives)).checked()


@pytest.mark.root
def test_a_full_disk_is_named_and_nothing_is_changed(cramped: PrivateMachine) -> None:
    cramped.main.put("alpha", "1.0")
    cramped.main.publish()
    call("dpkg", f"--root={cramped.path}", "-i", cramped.main.folder / "alpha_1.0_all.deb")
    cramped.main.put("alpha", "2.0", files={"usr/share/alpha/big": "x" * 100_000})
    cramped.main.publish()
    cramped.apt.refresh()
    plan = cramped.apt.plan(None)
    with pytest.raises(DiskFullError):
        apply_plan(cramped.apt, plan)
    assert cramped.version("alpha") == "1.0"
    cramped.apt.check_health()


def test_this_machine_can_be_scanned_and_planned_as_it_is() -> None:
    if not Path("/var/lib/dpkg/status").exists():
        pytest.skip("not run: needs a machine with dpkg")
    apt = Apt()
    scan, plan = apt.scan(), apt.plan(None)
    upgraded = {(s.name, s.new) for s in plan.steps if s.change is Change.UPGRADE}
    assert upgraded == {(update.name, update.candidate) for update in scan.updates}
    assert all(step.sha256 and step.download_bytes for step in plan.steps)
