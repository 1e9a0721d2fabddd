"""Whom an access list of Windows lets in, as Windows writes it down."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.host import access_list
from agent.host.access_list import PRIVATE, others_in
from agent.host.files import make_private_directory
from protocol.errors import DeniedError

OWN = "S-1-5-21-1-2-3-1001"


@pytest.mark.parametrize(
    ("description", "others"),
    [
        (PRIVATE, []),
        (f"O:{OWN}G:DU{PRIVATE}", []),
        (f"D:P(A;OICI;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;{OWN})", []),
        # What a folder in ProgramData inherits: users may read it and make files in it.
        (
            "O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIIOID;GA;;;CO)"
            "(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)",
            ["BU"],
        ),
        ("D:(A;;FA;;;WD)", ["WD"]),
        ("D:(D;;FA;;;WD)(A;;FA;;;SY)", []),
        ("D:(A;;FA;;;S-1-5-21-9-9-9-500)(A;;FR;;;AU)", ["AU", "S-1-5-21-9-9-9-500"]),
        ('D:(XA;;FX;;;WD;(@User.Title=="PM"))', ["WD"]),
        ("D:(A;;FA;;;SY)S:(AU;SAFA;FA;;;WD)", []),
        ("O:BA", ["everybody"]),
        ("D:NO_ACCESS_CONTROL", ["everybody"]),
        ("D:", []),
    ],
)
def test_others_are_found_in_an_access_list(description: str, others: list[str]) -> None:
    assert others_in(description, OWN) == others


def test_a_folder_that_somebody_else_made_at_the_last_moment_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may make folders in ProgramData."""
    owners = {tmp_path: "system"}

    def make(path: Path) -> None:
        owners[path] = "eve" if path.name == "Stead" else "system"
        path.mkdir()

    def check(path: Path) -> None:
        if owners[path] != "system":
            raise DeniedError(f"{path} is owned by {owners[path]}, who must not; remove it")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(access_list, "make_private", make, raising=False)
    monkeypatch.setattr(access_list, "check_owner", check, raising=False)
    with pytest.raises(DeniedError, match="owned by eve"):
        make_private_directory(tmp_path / "Stead" / "agent")
    assert list(owners) == [tmp_path, tmp_path / "Stead"]
    make_private_directory(tmp_path / "Other" / "agent")
    assert owners[tmp_path / "Other" / "agent"] == "system"
