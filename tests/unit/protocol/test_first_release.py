"""An order that uses nothing new is understood by the first release, which refuses the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import protocol
from protocol.action import (
    ACTIONS,
    Action,
    ApplyUpdates,
    CollectInventory,
    PlanUpdates,
    RestoreFiles,
    RunBackup,
    RunProgram,
    ScanUpdates,
    SetBackup,
    TakeSnapshot,
    name_of,
)
from protocol.codec import decode_order, encode_order, refuse_unknown
from protocol.errors import Code, SteadError
from protocol.limits import Limits
from protocol.selection import Commands, CommandStream, Rules
from tests.unit.protocol.signed import ORDER

RELEASED = Path(protocol.__file__).parent / "released.binpb"

PLAIN: tuple[Action, ...] = (
    RunProgram(("true",), b"in", {"LANG": "C"}, "/tmp"),
    CollectInventory(("cpu",)),
    TakeSnapshot(),
    ScanUpdates(),
    PlanUpdates(("bash",)),
    ApplyUpdates(b"{}"),
    SetBackup((b"/etc",), "daily"),
    RunBackup((b"/etc",)),
    RunBackup(),
    RestoreFiles("rp_" + "0" * 26, b"etc", (b"sealed",), b"/back", overwrite=True),
)
"""What each verb of the first release says when nothing newer is asked for."""


def first_release() -> type[Message]:
    files = FileDescriptorSet.FromString(RELEASED.read_bytes())
    pool = DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("protocol.v1.Order"))


def verbs_of(message: type[Message]) -> set[str]:
    return {field.name for field in message.DESCRIPTOR.oneofs_by_name["action"].fields}


def test_every_verb_of_the_first_release_is_tried_and_still_there() -> None:
    verbs = verbs_of(first_release())
    assert {name_of(action) for action in PLAIN} == verbs
    assert verbs <= set(ACTIONS)


@pytest.mark.parametrize("action", PLAIN, ids=repr)
def test_the_first_release_reads_a_plain_order(action: Action) -> None:
    encoded = encode_order(replace(ORDER, action=action))
    message = first_release().FromString(encoded)
    refuse_unknown(message)
    assert message.WhichOneof("action") == name_of(action)
    assert decode_order(encoded).action == action


@pytest.mark.parametrize(
    "action",
    [
        RunBackup((b"/etc",), Rules(exclude=(b"*.iso",))),
        RunBackup((b"/etc",), commands=Commands(before=("true",))),
        RunBackup((b"/etc",), commands=Commands((CommandStream(b"/s", ("true",)),))),
        RunBackup((b"/etc",), limit_upload=1),
        SetBackup((b"/etc",), drills="daily"),
        RunProgram(("true",), limits=Limits(nice=1)),
        RestoreFiles("rp_" + "0" * 26, b"etc", (), b"/back", verify=True),
    ],
    ids=repr,
)
def test_the_first_release_refuses_what_it_would_not_do(action: Action) -> None:
    encoded = encode_order(replace(ORDER, action=action))
    with pytest.raises(SteadError) as refused:
        refuse_unknown(first_release().FromString(encoded))
    assert refused.value.code is Code.UNKNOWN_FIELD
    assert decode_order(encoded).action == action
