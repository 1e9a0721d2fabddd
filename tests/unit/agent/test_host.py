from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from agent.host.files import write_atomically
from agent.host.lock import holder_of, locked
from agent.host.sd_notify import notify, watchdog_interval
from protocol.errors import Code, SteadError


def test_systemd_is_told_when_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert not notify("READY=1")
    assert watchdog_interval() is None
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        assert notify("READY=1")
        assert systemd.recv(100) == b"READY=1"
    assert watchdog_interval() == timedelta(seconds=15)
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_interval() is None


def test_a_systemd_that_takes_nothing_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        # However many the kernel keeps of what nobody reads.
        assert not all(notify("STATUS=connected") for _ in range(10_000))


def test_a_lock_names_its_holder_and_ends_with_the_block(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder_of(path) is None
    with locked(path):
        assert holder_of(path) == os.getpid()
        with pytest.raises(SteadError, match=f"process {os.getpid()}") as caught, locked(path):
            pass
        assert caught.value.code is Code.LOCKED
    assert holder_of(path) is None


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SteadError, match="nowhere") as caught:
        write_atomically(tmp_path / "nowhere" / "file", b"")
    assert caught.value.code is Code.STORE_FULL
