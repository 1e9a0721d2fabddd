"""A relay between agents and a controller that loses, doubles and reorders what they say.

It holds the keys of both, so each takes it for the other. A message that it lost is followed
by the end of the link, as where a network fails; none of the others may do any harm.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from protocol.tls import CHANNEL_OPTIONS
from protocol.v1 import link_pb2
from protocol.v1.inventory_pb2_grpc import (
    InventoryServiceServicer,
    InventoryServiceStub,
    add_InventoryServiceServicer_to_server,
)
from protocol.v1.link_pb2_grpc import (
    LinkServiceServicer,
    LinkServiceStub,
    add_LinkServiceServicer_to_server,
)

LATE_S = 0.1
"""At most so much later a message comes than those after it."""
CUT_WITHIN_S = 0.2
BACK_WITHIN_S = 1
HANGS_UP_WITHIN_S = 10
LOST_WELCOME = 2
"""So many links are made until one ends before its Welcome arrives, and the next ones go on."""
FATES = ("passed",) * 12 + ("lost",) * 2 + ("doubled",) * 3 + ("late",) * 3
"""Of each twenty messages, in an order of their own."""


class Relay(LinkServiceServicer, InventoryServiceServicer):
    """See the module. It passes everything on unchanged once it has lost `losses` messages."""

    def __init__(
        self, upstream: grpc.aio.Channel, credentials: Any, *, seed: int, losses: int
    ) -> None:
        self._upstream = upstream
        self._credentials = credentials
        self._chance = random.Random(seed)
        self._losses = losses
        self._deck: list[str] = []
        self._welcomes = 0
        self.fates: Counter[str] = Counter()
        """What became of how many messages."""
        self.address = ""

    async def __aenter__(self) -> Relay:
        self._server = grpc.aio.server(options=[*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)])
        add_LinkServiceServicer_to_server(self, self._server)
        add_InventoryServiceServicer_to_server(self, self._server)
        port = self._server.add_secure_port("127.0.0.1:0", self._credentials)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def Report(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Pass an inventory on."""
        call = InventoryServiceStub(self._upstream).Report
        return await call(request, metadata=_own(context))

    async def Connect(  # noqa: N802
        self, request_iterator: AsyncIterator[link_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[link_pb2.ConnectResponse]:
        """Pass on what both say, Hello and Welcome as they are."""
        call: Any = LinkServiceStub(self._upstream).Connect(metadata=_own(context))
        await call.write(await anext(request_iterator))
        welcome = await call.read()
        self._welcomes += 1
        if self._welcomes == LOST_WELCOME:
            call.cancel()
            return
        yield welcome
        down: asyncio.Queue[link_pb2.ConnectResponse | None] = asyncio.Queue()
        up: asyncio.Queue[link_pb2.ConnectRequest] = asyncio.Queue()

        def cut() -> None:
            drain = link_pb2.Drain(reconnect_within_s=BACK_WITHIN_S)
            down.put_nowait(link_pb2.ConnectResponse(drain=drain))
            down.put_nowait(None)

        work = [
            asyncio.create_task(self._listen(request_iterator, up.put_nowait, cut)),
            asyncio.create_task(self._listen(_answers(call), down.put_nowait, cut)),
            asyncio.create_task(_tell(call, up)),
        ]
        try:
            while (message := await down.get()) is not None:
                yield message
            # An agent that is writing when its call ends gets an error of gRPC's own, and waits
            # longer after each. It has been told to come back, and hangs up.
            await asyncio.wait(work[:1], timeout=HANGS_UP_WITHIN_S)
        finally:
            for task in work:
                task.cancel()
            call.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _listen(
        self, said: AsyncIterator[Any], pass_on: Callable[[Any], None], cut: Callable[[], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for message in said:
                fate = self._fate()
                self.fates[fate] += 1
                if fate == "lost":
                    loop.call_later(self._chance.uniform(0, CUT_WITHIN_S), cut)
                elif fate == "late":
                    loop.call_later(self._chance.uniform(0, LATE_S), pass_on, message)
                else:
                    for _ in range(2 if fate == "doubled" else 1):
                        pass_on(message)
        except grpc.aio.AioRpcError:
            pass
        cut()

    def _fate(self) -> str:
        if self.fates["lost"] >= self._losses:
            return "passed"
        if not self._deck:
            self._deck = self._chance.sample(FATES, len(FATES))
        return self._deck.pop()


def _own(context: Any) -> list[tuple[str, str | bytes]]:
    """What a caller says of itself beside its messages, without what gRPC adds."""
    return [(key, value) for key, value in context.invocation_metadata() if key.startswith("stead")]


async def _answers(call: Any) -> AsyncIterator[link_pb2.ConnectResponse]:
    while (answer := await call.read()) is not grpc.aio.EOF:
        yield answer


async def _tell(call: Any, messages: asyncio.Queue[link_pb2.ConnectRequest]) -> None:
    while True:
        await call.write(await messages.get())
