"""Which places can be watched, by recorded tables of mounts."""

from __future__ import annotations

import os

from agent.backup.select.pseudo import pseudo_devices
from agent.watch.mounts import parse_mounts, plan_mounts

PSEUDO = frozenset({"proc", "sysfs"})
TABLE = rb"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 27 0:21 / /proc rw - proc proc rw
30 27 254:1 / /srv rw - xfs /dev/vdb rw
31 30 0:40 / /srv/far rw - nfs4 server:/x rw
32 30 0:41 / /srv/box rw - overlay overlay rw,lowerdir=/a
33 30 254:0 /etc /srv/again rw - ext4 /dev/vda rw
34 30 254:2 / /srv/with\040blank rw - btrfs /dev/vdc rw
35 27 0:50 / /mnt/fuse rw - fuse.sshfs host: rw
"""


def test_local_file_systems_are_watched_and_others_are_walked() -> None:
    plan = plan_mounts(parse_mounts(TABLE), [b"srv"], PSEUDO)
    assert set(plan.apart) == {b"srv/far", b"srv/box"}
    assert plan_mounts(parse_mounts(TABLE), [b"mnt/fuse/x"], PSEUDO).apart == (b"mnt/fuse/x",)


def test_the_same_file_system_at_two_places_is_watched_at_one() -> None:
    plan = plan_mounts(parse_mounts(TABLE), [b""], PSEUDO)
    assert set(plan.apart) == {b"srv/far", b"srv/box", b"srv/again", b"mnt/fuse"}
    other = plan_mounts(parse_mounts(TABLE), [b"etc", b"srv/again"], PSEUDO)
    assert other.apart == (b"srv/again",)


def test_a_volume_that_was_switched_off_is_walked() -> None:
    plan = plan_mounts(parse_mounts(TABLE), [b"etc", b"srv"], PSEUDO, frozenset({b""}))
    assert b"etc" in plan.apart
    assert b"srv" not in plan.apart


def test_what_is_mounted_elsewhere_changes_nothing() -> None:
    before = plan_mounts(parse_mounts(TABLE), [b"srv"], PSEUDO)
    elsewhere = TABLE + rb"40 27 0:60 / /opt rw - tmpfs tmpfs rw" + b"\n"
    below = TABLE + rb"40 30 0:60 / /srv/new rw - tmpfs tmpfs rw" + b"\n"
    above = TABLE + rb"40 1 0:60 / /srv rw - tmpfs tmpfs rw" + b"\n"
    again = TABLE.replace(b"30 27 254:1", b"99 27 254:1")
    read_only = TABLE.replace(b"/srv rw - xfs", b"/srv ro - xfs")
    plans = [
        plan_mounts(parse_mounts(table), [b"srv"], PSEUDO).mark
        for table in (elsewhere, below, above, again, read_only)
    ]
    assert plans[0] == before.mark
    assert before.mark not in plans[1:]


def test_a_table_that_makes_no_sense_watches_nothing_wrong() -> None:
    assert parse_mounts(b"\n1 2 3\n - \nx - ext4\n") == []
    assert plan_mounts([], [b"srv"], PSEUDO).apart == ()


def test_a_volume_with_any_character_in_its_place_is_found() -> None:
    """A change in one that was not would be in no backup that goes by what was watched."""
    for odd in (b"\r", b"\x0b", b"\x0c", b"\x1c", b"\xc2\x85"):
        line = b"36 30 0:42 / /srv/a" + odd + b"b rw shared:1 - nfs4 server:/x rw\n"
        plan = plan_mounts(parse_mounts(TABLE + line), [b"srv"], PSEUDO)
        assert b"srv/a" + odd + b"b" in plan.apart
        dull = b"37 30 0:43 / /srv/c" + odd + b"d rw shared:1 - proc proc rw\n"
        assert pseudo_devices(TABLE + dull) == {os.makedev(0, 21), os.makedev(0, 43)}
