"""A controller and an enrolled machine in processes of their own, to be killed at will."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.actions.action import ActionResult, Workplace
from agent.actions.restore import execute as restore
from agent.backup.send.wire import GrpcVault
from agent.config import AgentHome
from agent.host import clock
from agent.link.identity import load_identity, open_channel
from agent.tasks.worker import encode_request
from demo.installation import ADDRESS, free_ports
from protocol.action import Action, RestoreFiles, RunBackup
from protocol.ids import TaskId
from protocol.v1 import vault_pb2
from protocol.v1.vault_pb2_grpc import VaultServiceStub
from protocol.vault.chunk import Opener
from protocol.vault.grant import Grant, seal_grant
from protocol.vault.keys import decode_tenant_key
from protocol.vault.point import decode_envelope, open_contents, verify_point
from protocol.vault.reader import TreeReader
from protocol.vault.seal import public_key
from tests.fakes.typed import TypedInstallation

ROOT = Path(__file__).parents[2]


class World:
    """One tenant, one machine; `files` is what it backs up.

    `clock` is a file that says how far the controller's clock is ahead.
    """

    def __init__(self, home: Path, clock: Path | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.installation = TypedInstallation(home)
        self._clock = clock
        self.home = AgentHome(home / "agent")
        self.files = home / "files"
        self.files.mkdir()
        self.worker = 0
        self._controller: subprocess.Popen[bytes] | None = None
        self._link, enroll = free_ports(2)
        must = self.installation.must
        must(
            "stead", "controller", "init", "--name", ADDRESS,
            "--listen", f"{ADDRESS}:{self._link}", "--enroll-listen", f"{ADDRESS}:{enroll}",
        )  # fmt: skip
        self.start_controller()
        must("stead", "tenant", "add", "acme")
        token = must("stead", "token", "new", "--tenant", "acme")
        must("stead-agent", "enroll", "--token", "-", stdin=token)
        self.identity = load_identity(self.home).identity

    def start_controller(self) -> None:
        """Start it, and wait until it takes connections."""
        program = [str(Path(sys.executable).parent / "stead")]
        if self._clock is not None:
            program = [sys.executable, "-m", "tests.faults.clocked", str(self._clock)]
        with (self.installation.home / "controller.log").open("ab") as log:
            self._controller = subprocess.Popen(
                [*program, "controller", "serve"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.installation.environment,
                cwd=ROOT,
            )
        self.installation.until_listening(self._controller, self._link)

    def kill_controller(self) -> None:
        """kill -9."""
        if self._controller is not None:
            self._controller.kill()
            self._controller.wait()
            self._controller = None

    def back_up(
        self,
        *before: str,
        on_progress: Callable[[Mapping[str, Any]], None] = lambda _said: None,
        limit_upload: int = 0,
    ) -> dict[str, Any] | None:
        """Run a worker, perhaps under a tracer; its result, or None when it was killed."""
        return self.work(
            RunBackup((bytes(self.files),), limit_upload=limit_upload), before, on_progress
        )

    def restore_in_worker(
        self,
        record: bytes,
        target: Path,
        *before: str,
        overwrite: bool = True,
        limit_download: int = 0,
        on_progress: Callable[[Mapping[str, Any]], None] = lambda _said: None,
    ) -> dict[str, Any] | None:
        """Restore in place of what is in `target`, as `back_up` backs up."""
        action = replace(
            self.order(record, target)[0], overwrite=overwrite, limit_download=limit_download
        )
        return self.work(action, before, on_progress)

    def work(
        self,
        action: Action,
        before: Sequence[str] = (),
        on_progress: Callable[[Mapping[str, Any]], None] = lambda _said: None,
    ) -> dict[str, Any] | None:
        """Have a worker do an action; its result, or None when it was killed."""
        request = encode_request(
            self.home,
            self.identity.tenant,
            self.identity.machine,
            TaskId(clock.new_id("ts")),
            action,
        )
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "agent.cli", "work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=self.installation.environment,
        )
        self.worker = process.pid
        assert process.stdin is not None
        assert process.stdout is not None
        result = None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            for line in process.stdout:
                said = json.loads(line)
                if said.get("result"):
                    result = said["result"]
                    break
                on_progress(said["progress"])
        except BrokenPipeError:
            result = None
        finally:
            process.stdout.close()
            try:
                process.stdin.close()
            except BrokenPipeError:
                result = None
            process.wait(30)
        return result

    def points(self) -> list[vault_pb2.PointRecord]:
        """What the controller holds, newest first."""
        with open_channel(self.home) as channel:
            answer = VaultServiceStub(channel).ListPoints(vault_pb2.ListPointsRequest())
            return list(answer.points)

    def restore(self, record: bytes, target: Path) -> ActionResult:
        """What an operator's order does: a grant, sealed to the machine, and the action."""
        return restore(*self.order(record, target))

    def order(self, record: bytes, target: Path) -> tuple[RestoreFiles, Workplace]:
        key_file = next((self.installation.home / "operator" / "tenants").glob("*.key"))
        tenant_key = decode_tenant_key(key_file.read_bytes())
        point = verify_point(decode_envelope(record))
        path = bytes(self.files).lstrip(b"/")
        with open_channel(self.home) as channel:
            reader = TreeReader(Opener(tenant_key.secret), GrpcVault(channel).get)
            spans = reader.subtree(open_contents(tenant_key.recovery_private, point).root, path)
        sealed = seal_grant(
            Grant(spans),
            public_key(self.sealing_public()),
            tenant=point.tenant,
            machine=point.machine,
            point=point.id,
        )
        place = Workplace(
            self.home,
            self.identity.tenant,
            self.identity.machine,
            TaskId(clock.new_id("ts")),
            lambda: open_channel(self.home),
            lambda _said: None,
        )
        return RestoreFiles(point.id, path, (sealed,), os.fsencode(target)), place

    def sealing_public(self) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        private = X25519PrivateKey.from_private_bytes(self.home.sealing_key.read_bytes())
        return private.public_key().public_bytes_raw()


def body_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON inside a worker's result."""
    return dict(json.loads(b64decode(result["result"])))
