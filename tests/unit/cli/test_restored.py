"""What was left out is named, and how much more of it there is."""

from __future__ import annotations

from typing import Any

import pytest

from controller.cli.orders.restored import say_left_out, say_not_backed_up
from protocol.vault.point import Skipped


def missing(count: int) -> list[dict[str, str]]:
    return [{"path": f"/{number}", "reason": "gone"} for number in range(count)]


@pytest.mark.parametrize(
    ("result", "more"),
    [
        ({"failed": missing(10), "left": 10}, 0),
        ({"failed": missing(200), "left": 4_000}, 3_990),
        ({"failed": missing(3), "left": 3, "warnings": missing(9), "warned": 9}, 2),
        ({"skipped_paths": missing(200), "skipped": 201}, 191),
        # A machine may say anything.
        ({"failed": missing(12), "left": "many"}, 2),
        ({"failed": "none", "left": 40}, 0),
    ],
)
def test_what_is_not_named_is_counted(
    result: dict[str, Any], more: int, capsys: pytest.CaptureFixture[str]
) -> None:
    say_left_out({"machine": "web-01", **result})
    said = capsys.readouterr().err.splitlines()
    counted = [line for line in said if "more;" in line]
    assert counted == (
        [f"web-01: and {more} more; --output json names up to 200 of each kind"] * bool(more)
    )
    assert len(said) - len(counted) <= 10


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ([b""], "2, such as /etc/secret: permission denied"),
        ([b"etc"], "1, such as /etc/secret: permission denied"),
        ([b"etc/secret", b"srv"], "2, such as /etc/secret: permission denied"),
        ([b"etc/sec", b"home"], ""),
    ],
)
def test_what_the_backup_could_not_read_is_told_to_who_restores(
    wanted: list[bytes], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    skipped = [
        Skipped(b"etc/secret", "permission denied"),
        Skipped(b"/srv/gone\x1b[31m", "vanished during the backup"),
    ]
    say_not_backed_up(skipped, wanted)
    said = capsys.readouterr().err.strip()
    assert said == (
        f"not in this restore point, since the backup left them out: {told}" if told else ""
    )
