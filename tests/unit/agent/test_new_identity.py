"""What a machine keeps of what the root signed when it becomes another machine."""

from __future__ import annotations

from pathlib import Path

from agent.config import AgentHome
from agent.link.enroll import finish
from agent.link.identity import load_identity
from protocol.ids import TenantId
from tests.fakes.link_server import Realm, fresh

ADDRESS = "127.0.0.1:1"


def a_machine(realm: Realm, path: Path) -> AgentHome:
    """Enrolled, and given a policy and a list."""
    home = AgentHome(path)
    realm.furnish(home, ADDRESS)
    home.policy.write_bytes(b"policy")
    home.revocations.write_bytes(b"list")
    return home


def test_a_new_key_for_the_same_tenant_brings_no_older_policy_back(tmp_path: Path) -> None:
    realm = Realm()
    home = a_machine(realm, tmp_path / "agent")
    anew = realm.furnish(AgentHome(home.enrolling), ADDRESS)
    finish(home)
    assert load_identity(home).identity == anew
    assert home.policy.read_bytes() == b"policy"
    assert home.revocations.read_bytes() == b"list"


def test_the_policy_of_the_tenant_before_does_not_stay(tmp_path: Path) -> None:
    realm = Realm()
    home = a_machine(realm, tmp_path / "agent")
    realm.tenant = TenantId(fresh("tn"))
    anew = realm.furnish(AgentHome(home.enrolling), ADDRESS)
    finish(home)
    assert load_identity(home).identity == anew
    assert not home.policy.exists()
    assert home.revocations.read_bytes() == b"list"


def test_nothing_that_the_root_before_signed_stays(tmp_path: Path) -> None:
    home = a_machine(Realm(), tmp_path / "agent")
    anew = Realm().furnish(AgentHome(home.enrolling), ADDRESS)
    finish(home)
    assert load_identity(home).identity == anew
    assert not home.policy.exists()
    assert not home.revocations.exists()
