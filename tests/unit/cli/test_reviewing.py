"""What an operator sees before signing what somebody else wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from controller.cli.orders.reviewing import details_of, lines_of, long_lines, review_row
from protocol.action import ACTIONS, Action, RunProgram, RunScript, name_of
from protocol.approval import judge
from protocol.codec import to_ms
from protocol.ids import MachineId
from protocol.limits import NO_LIMITS
from protocol.policy import no_policy
from protocol.rollout import EVERYTHING, Amount, Rollout
from protocol.selection import NO_COMMANDS
from protocol.standing import Standing
from tests.unit.protocol.signed import NOW, ORDER, TENANT
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


def test_of_many_machines_the_first_are_named_and_all_are_counted() -> None:
    many = tuple(MachineId(f"mc_{number:026}") for number in range(10_000))
    wanted = replace(ORDER, machines=many)
    names = {str(machine): f"web-{number}\n" for number, machine in enumerate(many)}
    row = review_row(wanted, judge(wanted, [ANN], no_policy(TENANT)), names, whole=False)
    assert len(row["machines"]) == 10_000
    [line] = [line for line in lines_of(row) if line.startswith("machines: ")]
    assert line.startswith("machines: 10000: web-0\\n, web-1")
    assert line.endswith(" and 9990 more; --show names all")
    assert list(long_lines(wanted, row["machines"]))[-1] == "  - web-9999\\n"


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


@pytest.mark.parametrize("kind", ACTIONS.values(), ids=ACTIONS.keys())
def test_of_every_choice_it_is_said_which_way_it_was_made(kind: type[Action]) -> None:
    action = made_up(kind)
    said = set(lines_of(details_of(action, whole=False)))
    choices = {
        f"{name}: {'yes' if on else 'no'}" for name, on in choices_of(name_of(action), action)
    }
    assert choices <= said
    # Whatever else it says, and what is said inside of that.
    shown = {line.partition(":")[0] for line in said}
    for field in dataclasses.fields(action):
        name = f"{name_of(action)}.{field.name}"
        if getattr(action, field.name) not in (b"", "", (), {}, 0, NO_LIMITS, NO_COMMANDS):
            assert any(one == name or one.startswith(f"{name}.") for one in shown), name


def made_up(kind: type[Action]) -> Action:
    """An action that says nothing but what it has to."""
    needed = {
        field.name: MADE_UP[str(field.type)]
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return kind(**needed)  # type: ignore[arg-type]


MADE_UP = {
    "str": "x",
    "int": 1,
    "bytes": b"x",
    "tuple[str, ...]": ("x",),
    "tuple[bytes, ...]": (b"x",),
    "Mapping[str, bytes]": {"x": b"x"},
}


def choices_of(name: str, said: object) -> Iterator[tuple[str, bool]]:
    for field in dataclasses.fields(said):  # type: ignore[arg-type]
        value = getattr(said, field.name)
        if isinstance(value, bool):
            yield f"{name}.{field.name}", value
        elif dataclasses.is_dataclass(value):
            yield from choices_of(f"{name}.{field.name}", value)


def test_the_terms_are_shown_whole() -> None:
    wanted = replace(
        ORDER,
        repeatable=True,
        rollout=Rollout((Amount(1), EVERYTHING), soak_s=60),
        windows=("22:00-04:00",),
        standing=Standing(
            "daily", to_ms(NOW + timedelta(days=1)), max_runs=3, spread_s=90, name="tidy"
        ),
    )
    said = "\n".join(
        lines_of(review_row(wanted, judge(wanted, [ANN], no_policy(TENANT)), {}, whole=False))
    )
    for line in ("repeatable: yes", "soak_s: 60", "max_failures: 0", "catch_up: no"):
        assert line in said.splitlines()
    for words in ("at most 3 times", "spread over 90 s", "called tidy", "22:00-04:00"):
        assert words in said
