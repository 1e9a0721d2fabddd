"""Measure the vault over real mutual TLS on loopback: upload, questions, download.

    python -m bench.vault_put [--mib 1024] [--kib 1024] [--streams 1]

The controller runs in this process, the machine in another; both share the cores.
Chunks of `--kib` that do not compress are made before the clock starts; a message
carries 1 MiB of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from controller import clock
from controller.authority.authority import load_certificate, load_key
from protocol.tls import CHANNEL_OPTIONS, chain_pem, client_credentials, private_pem
from protocol.v1 import vault_pb2
from protocol.v1.vault_pb2_grpc import VaultServiceStub
from protocol.vault.chunk import ChunkId, Kind, Sealer
from protocol.vault.keys import TenantKey
from tests.integration.conftest import install

MIB = 1024 * 1024
ASKED = 100_000
BATCH = 4096


async def serve(mib: int, kib: int, streams: int) -> None:
    """Run a controller and, in another process, a machine that uses it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        installation = await install(home / "home")
        machine = await installation.new_machine(await installation.add_tenant())
        (home / "key.pem").write_bytes(private_pem(machine.key))
        (home / "machine.pem").write_bytes(chain_pem(machine.chain))
        (home / "root.pem").write_bytes(chain_pem([installation.root]))
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.vault_put", "--client", folder,
            "--address", installation.link_address, "--mib", str(mib), "--kib", str(kib),
            "--streams", str(streams),
        )  # fmt: skip
        await client.wait()
        await installation.close()
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(f"controller: peak {used.ru_maxrss / 1024:.0f} MiB, "
              f"CPU {used.ru_utime + used.ru_stime:.1f} s")  # fmt: skip
        if client.returncode:
            raise SystemExit(client.returncode)


async def use(home: Path, address: str, mib: int, kib: int, streams: int) -> None:
    """Be the machine."""
    credentials = client_credentials(
        load_certificate(home / "root.pem"),
        chain=x509.load_pem_x509_certificates((home / "machine.pem").read_bytes()),
        key=load_key(home / "key.pem"),
    )
    async with grpc.aio.secure_channel(
        address, credentials, options=list(CHANNEL_OPTIONS)
    ) as channel:
        vault: Any = VaultServiceStub(channel)
        begun = await vault.Begin(vault_pb2.BeginRequest(point_id=clock.new_id("rp")))
        sealer = Sealer(TenantKey(os.urandom(32)).secret)
        chunks = [
            sealer.seal(Kind.DATA, os.urandom(kib * 1024 - 32)) for _ in range(mib * 1024 // kib)
        ]
        ids = [reference.id for reference, _ in chunks]
        each = max(1, 1024 // kib)
        await timed(
            f"Put of {len(chunks)} chunks", mib, put(vault, begun.session_id, chunks, each, streams)
        )
        await timed(
            "Put of the same again", mib, put(vault, begun.session_id, chunks, each, streams)
        )
        await timed("Get", mib, get(vault, ids))
        started = time.perf_counter()
        await has(vault, begun.session_id, ids)
        print(f"Has of {ASKED:,} ids: {time.perf_counter() - started:.2f} s")


async def timed(name: str, mib: int, work: Any) -> None:
    started = time.perf_counter()
    await work
    took = time.perf_counter() - started
    print(f"{name}, {mib} MiB: {took:.2f} s, {mib * MIB / took / 1e6:.0f} MB/s")


async def put(vault: Any, session: str, chunks: Sequence[Any], each: int, streams: int) -> None:
    async def one(mine: Sequence[Any]) -> None:
        async def requests() -> AsyncIterator[vault_pb2.PutRequest]:
            for start in range(0, len(mine), each):
                message = [stored for _, stored in mine[start : start + each]]
                yield vault_pb2.PutRequest(session_id=session, chunks=message)

        durable = 0
        async for answer in vault.Put(requests()):
            durable = answer.durable
        assert durable == len(mine)

    await asyncio.gather(*(one(chunks[number::streams]) for number in range(streams)))


async def get(vault: Any, ids: Sequence[ChunkId]) -> None:
    count = 0
    for start in range(0, len(ids), BATCH):
        request = vault_pb2.GetRequest(chunk_ids=ids[start : start + BATCH])
        async for answer in vault.Get(request):
            count += len(answer.chunks)
    assert count == len(ids)


async def has(vault: Any, session: str, ids: Sequence[ChunkId]) -> None:
    ids = ids[:ASKED]
    asked = [*ids, *(os.urandom(32) for _ in range(ASKED - len(ids)))]
    requests = [
        vault_pb2.HasRequest(session_id=session, chunk_ids=asked[start : start + BATCH])
        for start in range(0, len(asked), BATCH)
    ]
    answers = await asyncio.gather(*(vault.Has(request) for request in requests))
    assert sum(sum(answer.held) for answer in answers) == len(ids)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--kib", type=int, default=1024)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--client", type=Path)
    parser.add_argument("--address")
    given = parser.parse_args()
    if given.client is None:
        asyncio.run(serve(given.mib, given.kib, given.streams))
    else:
        asyncio.run(use(given.client, given.address, given.mib, given.kib, given.streams))


if __name__ == "__main__":
    main()
