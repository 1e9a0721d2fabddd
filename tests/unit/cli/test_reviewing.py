"""What an operator sees before signing what somebody else wrote."""

from __future__ import annotations

from dataclasses import replace

from controller.cli.reviewing import details_of, lines_of, review_row
from protocol.action import RunProgram, RunScript
from protocol.approval import judge
from protocol.policy import no_policy
from tests.unit.protocol.signed import ORDER, TENANT
from tests.unit.protocol.test_policy import ANN, HELPER


def test_everything_that_a_machine_would_do_is_shown() -> None:
    action = RunProgram(("sh", "-c", "rm -rf /"), environment={"A": "b"}, directory="/srv")
    assert details_of(action, whole=False) == {
        "run_program.argv": ["sh", "-c", "rm -rf /"],
        "run_program.environment": {"A": "b"},
        "run_program.directory": "/srv",
    }


def test_a_script_is_counted_and_shown_whole_when_asked() -> None:
    script = RunScript("sh", b"echo \xff\x1b[2J\n" * 40, arguments=("x",))
    assert details_of(script, whole=False)["run_script.body"].startswith("440 bytes")
    assert details_of(script, whole=True)["run_script.body"].startswith("echo \\xff\x1b[2J")
    long = RunProgram(("a",), directory="/" + "x" * 300)
    assert "--show" in details_of(long, whole=False)["run_program.directory"]


def test_long_arguments_are_never_left_out() -> None:
    action = RunProgram(("sh", "-c", "true; " * 100 + "evil"))
    assert details_of(action, whole=False)["run_program.argv"][2].endswith("evil")


def test_who_signed_and_who_proposed_stand_apart() -> None:
    wanted = replace(ORDER, action=RunProgram(("true",)))
    approval = judge(wanted, [HELPER, ANN], no_policy(TENANT))
    row = review_row(wanted, approval, {str(wanted.machines[0]): "web-01"}, whole=False)
    assert row["machines"] == ["web-01"]
    assert row["signed_by"] == ["ann (technician)"]
    assert row["proposed_by"] == ["hal (helpdesk)"]


def test_what_somebody_else_wrote_makes_no_lines_of_its_own() -> None:
    wanted = replace(ORDER, reason="x\nsigned_by: admin (admin)\rsignatures_missing: 0")
    row = review_row(wanted, judge(wanted, [ANN], no_policy(TENANT)), {}, whole=True)
    said = list(lines_of(row))
    assert [line for line in said if line.startswith("signed_by")] == [
        "signed_by: ann (technician)"
    ]
    assert not any("\n" in line or "\r" in line for line in said)


def test_where_an_argument_ends_is_seen() -> None:
    row = details_of(RunProgram(("rm", "a, b")), whole=False)
    assert list(lines_of(row)) == ["run_program.argv: ['rm', 'a, b']"]
