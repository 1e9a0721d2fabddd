"""What Windows and macOS are told about programs, and what they are not asked to do."""

from __future__ import annotations

import struct
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from agent.actions.program import outcome_of_program
from agent.actions.registry import LINUX_ALONE, refuse_elsewhere
from agent.actions.script import as_read, names_of
from agent.config import windows_home
from agent.host.environment import environment_of, top_of, windows_places, with_added
from agent.host.job_object import encode_cpu_rate, encode_limits
from agent.host.launching import refuse_limits
from agent.host.process import ProgramError, windows_argv
from protocol.action import ACTIONS
from protocol.errors import Code, SteadError
from protocol.ids import TaskId
from protocol.limits import NO_LIMITS, Limits

OWN = {
    "SYSTEMROOT": "D:\\Windows",
    "SystemDrive": "D:",
    "Path": "C:\\Users\\eve\\bin",
    "PATHEXT": ".COM;.EXE;.BAT",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "TEMP": "D:\\Temp",
}


def test_a_windows_program_gets_what_it_needs_and_nothing_else() -> None:
    assert environment_of("win32", OWN) == {
        "PATHEXT": ".COM;.EXE;.BAT",
        "SystemDrive": "D:",
        "SystemRoot": "D:\\Windows",
        "TEMP": "D:\\Temp",
        "PATH": "D:\\Windows\\System32;D:\\Windows;D:\\Windows\\System32\\Wbem;"
        "D:\\Windows\\System32\\WindowsPowerShell\\v1.0",
    }
    assert environment_of("win32", {})["PATH"].startswith("C:\\Windows\\System32;")
    assert (top_of("win32", environment_of("win32", OWN)), top_of("linux", {})) == ("D:\\", "/")


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_other_programs_get_fixed_words_alone(system: str) -> None:
    found = environment_of(system, OWN)
    assert sorted(found) == ["LANG", "LC_ALL", "PATH"]
    assert found["LANG"].endswith(".UTF-8")


def test_a_name_that_differs_in_its_letters_is_another_one_but_on_windows() -> None:
    assert with_added({"PATH": "a"}, {"Path": "b"}, system="linux") == {"PATH": "a", "Path": "b"}
    assert with_added({"PATH": "a"}, {"Path": "b"}, system="win32") == {"Path": "b"}


def test_no_program_is_looked_for_where_its_asker_is() -> None:
    path = ".;bin;C:\\Windows;;\\\\server\\share;C:relative;\\rooted"
    assert list(windows_places("tool", path, ".EXE;.COM")) == [
        "C:\\Windows\\tool",
        "C:\\Windows\\tool.EXE",
        "C:\\Windows\\tool.COM",
        "\\\\server\\share\\tool",
        "\\\\server\\share\\tool.EXE",
        "\\\\server\\share\\tool.COM",
    ]


@pytest.mark.parametrize("name", ["C:\\x\\a.bat", "C:\\x\\a.CMD", "..\\a.Bat", "C:\\a.bat. ."])
def test_a_batch_file_is_not_called_with_arguments(name: str) -> None:
    with pytest.raises(ProgramError, match="a batch file takes no arguments") as caught:
        windows_argv((name, '"&calc.exe'), {})
    assert caught.value.code is Code.UNSUPPORTED


def test_a_program_is_called_by_where_it_lies() -> None:
    assert windows_argv(("C:\\x\\a.exe", "b c"), {}) == ("C:\\x\\a.exe", "b c")
    with pytest.raises(ProgramError, match="it is not in C:"):
        windows_argv(("nowhere",), {"Path": "C:\\Windows"})


@pytest.mark.parametrize(
    ("limits", "flags", "priority", "memory"),
    [
        (NO_LIMITS, 0x2400, 0, 0),
        (Limits(memory_bytes=2**33), 0x2600, 0, 2**33),
        (Limits(nice=1), 0x2420, 0x4000, 0),
        (Limits(nice=10), 0x2420, 0x40, 0),
        (Limits(memory_bytes=2**28, cpu_percent=50, nice=9), 0x2620, 0x4000, 2**28),
    ],
)
def test_limits_become_those_of_a_job(
    limits: Limits, flags: int, priority: int, memory: int
) -> None:
    """The offsets are those that a compiler finds in winnt.h for 64 bits."""
    data = encode_limits(limits)
    assert len(data) == 144
    assert struct.unpack_from("<I", data, 16) == (flags,)
    assert struct.unpack_from("<I", data, 56) == (priority,)
    assert struct.unpack_from("<Q", data, 120) == (memory,)
    rest = bytearray(data)
    for offset, length in ((16, 4), (56, 4), (120, 8)):
        rest[offset : offset + length] = bytes(length)
    assert not any(rest)


@pytest.mark.parametrize(
    ("percent", "processors", "rate"),
    [(100, 1, 10_000), (50, 1, 5000), (100, 8, 1250), (1, 128, 1), (10_000, 2, 10_000)],
)
def test_a_part_of_one_processor_is_a_part_of_all(percent: int, processors: int, rate: int) -> None:
    assert encode_cpu_rate(percent, processors) == struct.pack("<II", 5, rate)


@pytest.mark.parametrize("limits", [Limits(memory_bytes=2**28), Limits(cpu_percent=50)])
def test_what_macos_would_hold_nobody_to_is_refused(limits: Limits) -> None:
    with pytest.raises(SteadError, match="macOS does not limit") as caught:
        refuse_limits(limits)
    assert caught.value.code is Code.UNSUPPORTED
    refuse_limits(Limits(nice=5))
    refuse_limits(NO_LIMITS)


@pytest.mark.parametrize(
    ("code", "kept", "words"),
    [
        (0xC0000005, -1073741819, "ended with exit code 0xC0000005"),
        (0xFFFFFFFF, -1, "ended with exit code 0xFFFFFFFF"),
        (2**31 - 1, 2**31 - 1, "ended with exit code 2147483647"),
        (3, 3, "ended with exit code 3"),
        (-9, -9, "was ended by SIGKILL"),
    ],
)
def test_a_code_of_32_bits_fits_an_outcome(code: int, kept: int, words: str) -> None:
    outcome = outcome_of_program(TaskId("ts"), code)
    assert (outcome.exit_code, outcome.message) == (kept, words)


def test_windows_powershell_is_told_that_a_script_is_utf_8() -> None:
    body = "Write-Output 'Grüße'".encode()
    old = "C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\PowerShell.EXE"
    assert as_read(body, old) == BOM_UTF8 + body
    assert as_read(BOM_UTF8 + body, old) == BOM_UTF8 + body
    for program in ("/usr/bin/pwsh", "C:\\pwsh.exe", "/bin/sh"):
        assert as_read(body, program) == body


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_what_windows_calls_bash_is_not_asked(shell: str) -> None:
    with pytest.raises(SteadError, match=f"no {shell} that could run this") as caught:
        names_of(shell, "win32")
    assert caught.value.code is Code.PRECONDITION
    assert names_of("python", "win32")[-1] == "py"
    assert names_of(shell, "darwin") == (shell,)


def test_state_lies_where_windows_wants_it() -> None:
    told = {"ProgramData": "D:\\Data", "LOCALAPPDATA": "C:\\Users\\eve\\Local"}
    assert windows_home(told, service=True) == Path("D:\\Data") / "Stead"
    assert windows_home(told, service=False) == Path("C:\\Users\\eve\\Local") / "Stead"
    with pytest.raises(SteadError, match="LOCALAPPDATA is not set"):
        windows_home({}, service=False)


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_what_was_never_tried_elsewhere_is_refused_there(system: str) -> None:
    assert set(ACTIONS) > LINUX_ALONE
    for name in ACTIONS:
        refuse_elsewhere(name, "linux")
        if name not in LINUX_ALONE:
            refuse_elsewhere(name, system)
            continue
        with pytest.raises(SteadError, match=f"{name} does not run on") as caught:
            refuse_elsewhere(name, system)
        assert caught.value.code is Code.UNSUPPORTED
    assert {"set_backup", "run_backup", "restore_files", "apply_updates", "put_file"} <= LINUX_ALONE
