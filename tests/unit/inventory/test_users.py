from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.inventory.sections import users
from agent.inventory.sections.users import Login
from protocol.errors import UnavailableError
from tests.unit.inventory.machines import machine, recorded, tree

ANN = Login("ann", "pts/0", "198.51.100.7", "2025-05-14T08:45:45Z")


def record(kind: int, pid: int, name: bytes, *, wide: bool = False) -> bytes:
    """One utmp record, as glibc lays it out on x86 (384 bytes) or on 64-bit ARM (400)."""
    head = struct.pack(
        "=hxxi32s4s32s256shh", kind, pid, b"pts/0", b"ts/0", name, b"198.51.100.7", 0, 0
    )
    if wide:
        return head + struct.pack("=qqq16s20sxxxx", 1, 1747212345, 0, b"", b"")
    return head + struct.pack("=iii16s20s", 1, 1747212345, 0, b"", b"")


def test_logind_tells_people_and_no_greeters(tmp_path: Path) -> None:
    text = recorded("logind-session.txt")
    files = {
        "/run/systemd/system/.keep": "",
        "/run/systemd/sessions/5": text,
        "/run/systemd/sessions/5.ref": "",
        "/run/systemd/sessions/c1": text.replace("CLASS=user", "CLASS=greeter"),
        "/run/systemd/sessions/6": text.replace("STATE=active", "STATE=closing"),
    }
    assert users.collect(machine(tree(tmp_path, files))) == users.Users(
        source="logind", logins=[ANN]
    )


@pytest.mark.parametrize(("arch", "wide", "size"), [("x86_64", False, 384), ("aarch64", True, 400)])
def test_utmp_is_read_in_the_layout_of_the_machine(arch: str, wide: bool, size: int) -> None:
    content = record(2, 0, b"reboot", wide=wide) + record(7, 41, b"ann", wide=wide)
    assert len(content) == 2 * size
    assert users.parse_utmp(content, arch=arch) == [(41, ANN)]


def test_a_log_in_whose_process_has_ended_is_over(tmp_path: Path) -> None:
    content = record(7, 41, b"ann") + record(7, 42, b"bob") + record(8, 43, b"eve")
    files: dict[str, str | bytes] = {"/run/utmp": content, "/proc/41/stat": "41 (sshd) S"}
    facts = users.collect(machine(tree(tmp_path, files)))
    assert facts == users.Users(source="utmp", logins=[ANN])


def test_nobody_logged_in_differs_from_nobody_who_would_know(tmp_path: Path) -> None:
    assert users.collect(machine(tree(tmp_path / "a", {"/run/utmp": b""}))).logins == []
    with pytest.raises(UnavailableError, match="neither systemd-logind nor utmp"):
        users.collect(machine(tmp_path / "b"))
    with pytest.raises(UnavailableError, match="no multiple"):
        users.parse_utmp(bytes(383), arch="x86_64")
