"""Requests to every method, made from the descriptors, with a say in every id that they name.

A field that is in none of the tables below is an error: whoever adds one says what it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from controller import clock
from protocol.codec import to_ms
from tests.integration.services import Method
from tests.integration.two_tenants import nobody

NAMES = {
    "tenant_id": "tenant",
    "machine_id": "machine",
    "machine_ids": "machine",
    "sender_id": "machine",
    "token_id": "token",
    "job_id": "job",
    "before_job_id": "job",
    "before_order_id": "standing",
    "named": "machine",
    "order_id": "standing",
    "standing_order_id": "standing",
    "task_id": "task",
    "running_task_ids": "task",
    "point_id": "point",
    "point_ids": "point",
    "older_than": "point",
    "session_id": "session",
    "chunk_ids": "chunk",
    "parcel_id": "parcel",
    "hash": "section",
    "BringBackRequest.point_id": "gone",
    "operator": "operator",
}
"""Fields that name something of a tenant, wherever they stand."""

NEW = {
    "CreateTokenRequest.token_id": "token",
    "AddTenantRequest.tenant_id": "tenant",
    "OpenParcelRequest.parcel_id": "parcel",
    "BeginRequest.point_id": "point",
    "Drill.drill_id": "drill",
}
"""Ids that the caller makes: unlike all others, one that is taken may be refused as taken."""

FRESH = "fresh "
"""Before the kind of a thing that is to be new."""

WORDS: dict[str, Any] = {
    "action": "",
    "actor": "",
    "add": "tag",
    "agent_version": "0.1.0",
    "bodies": b"",
    "certificate": b"",
    "chunks": b"",
    "code": "",
    "data": b"printed",
    "deny": "script",
    "details": b"",
    "envelope": b"",
    "event": "",
    "facts": "cpu.cores=4",
    "found": "forked",
    "hostname": "web-01",
    "inventory_root": b"",
    "kind": "drill",
    "link": b"",
    "message": "",
    "name": "some-name",
    "SectionHash.name": "cpu",
    "ListStandingRequest.name": "",
    "policy": b"",
    "present_key": b"",
    "reason": "why",
    "record": b"",
    "recovery_key": bytes(32),
    "remove": "no-such-tag",
    "result": b"",
    "revocations": b"",
    "rules": "",
    "sealed": b"sealed",
    "sealed_bundle": b"",
    "sealing_key": b"",
    "sealing_proof": b"",
    "secret_hash": bytes(32),
    "sections": "cpu",
    "signature": b"",
    "signing_request": b"",
    "state": "",
    "Drill.state": "good",
    "tags": "tag",
    "token": b"",
    "token_secret": bytes(16),
}
"""What the other texts and bytes of requests say; they name nothing that a tenant has."""

NUMBERS = {
    "uses": 1,
    "ttl_s": 3600,
    "max_bytes": 1 << 20,
    "keep_s": 3600,
    "limit": 5,
    "number": 1,
    "state": 1,
    "stream": 1,
}
NOW = {"agent_time_ms", "started_at_ms", "ended_at_ms", "collected_at_ms"}

Pick = Callable[[str, str], str | bytes]


@dataclass(frozen=True)
class Case:
    """One way of calling a method; `make` asks for the id of each thing that it names."""

    method: Method
    label: str
    make: Callable[[Pick], Message]

    def __str__(self) -> str:
        return f"{self.method.path.rpartition('.')[2]} {self.label}".strip()

    def paths(self) -> dict[str, str]:
        """Where it names something, and what."""
        found: dict[str, str] = {}

        def note(path: str, kind: str) -> str | bytes:
            found[path] = kind
            value: str | bytes = getattr(nobody(), kind.removeprefix(FRESH))
            return value

        self.make(note)
        return found


@dataclass(frozen=True)
class Filling:
    """Says something in every text and every bytes of a message, and below it."""

    pick: Pick
    only: str = ""
    """Of a choice, the member that is taken."""
    without: str = ""
    """A path that is left out."""
    alone: str = ""
    """The one path at which something is named."""
    new: Mapping[str, str] = field(default_factory=lambda: NEW)

    def filled(self, message: Any) -> Any:
        for one in message.DESCRIPTOR.fields:
            chosen = one.containing_oneof is None or one.name == self.only
            if chosen and _path(one) != self.without:
                self.fill(message, one)
        return message

    def fill(self, message: Any, one: FieldDescriptor) -> None:
        if one.type == FieldDescriptor.TYPE_MESSAGE:
            below = getattr(message, one.name)
            below = below.add() if one.is_repeated else below
            below.SetInParent()
            self.filled(below)
            return
        value = self.value(one)
        if one.is_repeated and value:
            getattr(message, one.name).append(value)
        elif not one.is_repeated and value is not None:
            setattr(message, one.name, value)

    def value(self, one: FieldDescriptor) -> Any:
        if one.type not in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
            return to_ms(clock.now()) if one.name in NOW else NUMBERS.get(one.name)
        path = _path(one)
        if path in self.new:
            return self.pick(path, f"{FRESH}{self.new[path]}")
        if one.name in NAMES:
            if self.alone not in {"", path}:
                return None
            return self.pick(path, NAMES.get(path, NAMES[one.name]))
        assert one.name in WORDS, f"say in NAMES, NEW or WORDS what {path} is"
        return WORDS.get(path, WORDS[one.name])


def _path(one: FieldDescriptor) -> str:
    assert one.containing_type is not None
    return f"{one.containing_type.name}.{one.name}"


Signed = Callable[[Pick, str], bytes]
"""What a caller signs to go with a request, by which it is: an order, a restore point."""


def _ordered(method: Method, signed: Signed, what: str, pick: Pick) -> Message:
    return method.request(envelope=signed(pick, what))


def cases(method: Method, signed: Signed) -> Iterator[Case]:
    """Every way of calling a method that names other things than the others."""

    def case(label: str, **terms: Any) -> Case:
        return Case(method, label, lambda pick: Filling(pick, **terms).filled(method.request()))

    match method.descriptor.name:
        case "Connect":
            members = [one.name for one in method.descriptor.input_type.fields]
            for member in members:
                if member != "hello":
                    yield case(member, only=member, without="TaskStarted.run")
            new = NEW | {"TaskStarted.task_id": "task"}
            yield case("a run by itself", only="task_started", new=new)
        case "SubmitOrder":
            for what in ("an order", "a revocation"):
                yield Case(method, what, partial(_ordered, method, signed, what))
        case "Commit":
            yield Case(
                method,
                "",
                lambda pick: method.request(
                    session_id=pick("CommitRequest.session_id", "session"),
                    record=signed(pick, "a restore point"),
                ),
            )
        case _:
            yield case("")
            for path in case("").paths():
                yield case(f"by {path} alone", alone=path)
