"""Have a machine compare a restore point with itself, and read its answer."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from controller.cli.options.terms import Terms
from controller.cli.orders.ordering import order_and_follow
from controller.cli.orders.outcomes import exit_code, result_of, say_failures
from controller.cli.orders.restored import SHOWN
from controller.cli.output.emit import note
from controller.cli.output.entries import text_of
from controller.cli.points.compared import Told
from controller.cli.points.granting import granted
from controller.cli.points.opened import Opened
from protocol.action import CompareLive
from protocol.errors import InvalidError
from protocol.v1.job_pb2 import Task
from protocol.v1.operator_pb2 import Machine
from protocol.vault.comparison import Terms as Asked
from protocol.vault.comparison import entry_of, open_pages, seal_terms
from protocol.vault.diff import Change
from protocol.vault.point import Contents

UNKNOWN_RULES = (
    "by which rules the restore point was made is not known on the machine, so its own were "
    "taken: what others left out shows as added"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a machine found. `code` is the exit code that it comes to."""

    task: Task
    key: X25519PrivateKey
    machine: str
    point: str
    code: int

    def told(self) -> Iterator[Told]:
        """The differences, a page at a time, and then a word on what could not be seen."""
        result = result_of(self.task)
        if not result:
            return
        pages = open_pages(self.key, _pages(result), machine=self.machine, point=self.point)
        left: list[tuple[bytes, str]] = []
        for page in pages:
            left += page.skipped
            for one in page.differences:
                old, new = entry_of(one.name, one.old), entry_of(one.name, one.new)
                if old is None and new is None:
                    raise InvalidError(f"the machine says nothing of {text_of(one.name)}")
                yield Change(one.parent, old, new), one.what
        for path, reason in left[:SHOWN]:
            note(f"{self.task.machine_name}: /{text_of(path)}: {reason}")
        if result.get("rules_known") is False:
            note(f"{self.task.machine_name}: {UNKNOWN_RULES}")


def ask(
    opened: Opened,
    contents: Contents,
    path: bytes,
    target: Machine,
    terms: Terms,
    *,
    content: bool,
    quick: bool,
    output: str,
) -> Answer | None:
    """Order the comparison and wait for its end; None when nothing was ordered."""
    if not terms.wait:
        raise InvalidError(
            "the machine answers to this very run alone; leave out --no-wait, and say with "
            "--deliver-by how long to wait for the machine"
        )
    if content and quick:
        raise InvalidError("--content and --quick contradict each other")
    key = X25519PrivateKey.generate()
    names = {"machine": target.machine_id, "point": opened.point.id}
    reference = granted(opened, path, target, may_lack=True)
    paths = tuple(b"/" + one.lstrip(b"/") for one in contents.paths)
    asked = Asked(paths, key.public_key().public_bytes_raw())
    action = CompareLive(
        point_id=opened.point.id,
        path=path,
        sealed_references=(reference,),
        sealed_terms=seal_terms(asked, target.sealing_key, tenant=opened.tenant, **names),
        rules=opened.point.rules,
        content=content,
        quick=quick,
    )
    job = order_and_follow(
        opened.connection, [target], action, terms, output=output, repeatable=True
    )
    if job is None:
        return None
    say_failures(job)
    return Answer(job.tasks[0], key, code=exit_code(job), **names)


def _pages(result: dict[str, Any]) -> list[bytes]:
    pages = result.get("pages")
    try:
        if isinstance(pages, list):
            return [b64decode(page, validate=True) for page in pages]
    except (Base64Error, TypeError, ValueError):
        pages = None
    raise InvalidError("the machine's answer cannot be read; is its agent of another release?")
