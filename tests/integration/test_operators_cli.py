"""Operators, their keys and the log of what they do, as it is typed: real programs."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta

from agent.config import AgentHome
from controller.authority.authority import load_certificate, load_key
from controller.authority.certificates import certify_operator
from controller.authority.keys import new_serial
from controller.cli.operator.renewal import load_root
from controller.config import OperatorHome, RootHome
from protocol.identity import OperatorIdentity, Role
from protocol.tls import chain_pem
from tests.integration.place import Place, machine, place

__all__ = ["machine", "place"]


def test_the_log_is_whole_and_a_noted_head_is_found_in_it(place: Place) -> None:
    logs = {row["log"]: row for row in place.rows("audit", "verify")}
    assert {row["state"] for row in logs.values()} == {"ok"}
    head = logs["acme"]["head"]
    place.good("run", "all", "--", "true")
    place.good("audit", "verify", "--tenant", "acme", "--head", head)
    number, _ = head.split(":")
    (row,) = place.rows(
        "audit", "verify", "--tenant", "acme", "--head", f"{number}:{'0' * 64}", codes=(1,)
    )
    assert row["state"] == "damaged"
    assert f"entry {number}" in row["reason"]
    assert "order_submitted" in place.good("audit", "ls", "--tenant", "acme")


def test_keys_leave_and_come_back(place: Place) -> None:
    paper = place.good("tenant", "key", "export", "acme", "--paper")
    saved = place.directory / "acme.key"
    place.good("tenant", "key", "export", "acme", "--to", str(saved))
    assert saved.stat().st_mode & 0o777 == 0o600
    place.bad("tenant", "key", "export", "acme", "--to", str(saved), code=1)
    (kept,) = (place.directory / "home" / "operator" / "tenants").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.unlink()
    assert "stead tenant key share" in place.bad("token", "new", "--tenant", "acme", code=1)
    place.bad("tenant", "key", "import", "acme", "-", stdin="0" * 60, code=2)
    place.good("tenant", "key", "import", "acme", "-", stdin=paper.lower())
    assert kept.read_bytes() == saved.read_bytes()


def test_an_operator_does_what_the_role_allows_and_no_more(place: Place, machine: str) -> None:
    words = ("operator", "add", "eve", "--role", "helpdesk", "--tenant", "acme", "--to", "eve")
    place.good(*words, "--with-keys")
    assert f'"{machine}"' in place.good("machine", "ls", "--output", "jsonl", home="eve")
    place.good("snapshot", "take", machine, home="eve", codes=(0, 3))
    place.good("process", "ls", machine, home="eve")
    assert "may not order read_log" in place.bad("logs", machine, home="eve", code=4)
    place.bad("service", "start", machine, "cron", home="eve", code=4)
    assert "may not order run_program" in place.bad(
        "run", machine, "--", "true", home="eve", code=4
    )
    for dry in (
        ("run", machine, "--dry-run", "--", "true"),
        ("power", "reboot", machine, "--dry-run"),
    ):
        assert "may not order" in place.bad(*dry, home="eve", code=4)
    # The latest job is the latest of one's own.
    place.good("run", machine, "--", "true")
    assert place.rows("job", "show", "latest")["action"] == "run_program"
    own = json.loads(place.good("job", "show", "latest", "-o", "json", home="eve"))
    assert own["action"] == "list_processes"
    place.bad("token", "new", home="eve", code=4)
    (planned,) = place.rows("operator", "revoke", "eve", "--dry-run")
    assert (planned["name"], planned["version"]) == ("eve", 1)
    place.bad("operator", "revoke", "eve", "--yes", "--root", "nowhere", code=1)
    place.bad("operator", "revoke", "admin", "--yes", code=1)
    place.good("operator", "revoke", "eve", "--yes")
    (told,) = place.rows("operator", "revocations")
    assert (told["name"], told["version"]) == ("eve", 1)
    place.good("run", machine, "--", "true")
    kept = AgentHome(place.directory / "m1" / "agent").revocations
    assert (
        kept.read_bytes()
        == OperatorHome(place.directory / "home" / "operator").revocations.read_bytes()
    )
    place.bad("machine", "ls", home="eve", code=4)


def test_an_ended_operator_is_renewed_without_a_controller_and_believed(
    place: Place, machine: str
) -> None:
    late = OperatorHome(place.directory / "late" / "operator")
    shutil.copytree(place.directory / "home" / "operator", late.path)
    root = RootHome(place.directory / "home" / "root")
    begun = datetime.now(UTC) - timedelta(days=400)
    ended = certify_operator(
        load_root(root, datetime.now(UTC)),
        load_key(late.key).public_key(),
        OperatorIdentity("admin", Role.ADMIN, None),
        serial=new_serial(),
        now=begun,
    )
    late.certificate.write_bytes(chain_pem([ended]))
    assert "stead operator renew" in place.bad("machine", "ls", home="late", code=4)
    place.bad("operator", "renew", "--root", "nowhere", home="late", code=1)
    place.bad("operator", "renew", "eve", "--root", str(root.path), home="late", code=2)
    place.good("operator", "renew", "admin", "--root", str(root.path), home="late")
    listed = json.loads(place.good("operator", "ls", "-o", "json", home="late"))
    end = load_certificate(late.certificate).not_valid_after_utc
    (admin,) = [one for one in listed if one["name"] == "admin"]
    assert datetime.fromisoformat(admin["ends_at"]) == end
    assert place.good("run", machine, "--", "printf", "again", home="late") == "again"
