"""A real HTTP proxy on the loopback interface, which knows CONNECT and little else."""

from __future__ import annotations

import asyncio
import base64
from types import TracebackType

from protocol.proxy import Proxy


class ConnectProxy:
    """Use as a context.

    `asked` are the addresses that it was asked for, in order. With `user`, who shows no such
    credentials gets 407. `answer` takes the place of a connection: these bytes, then the end.
    While it is `frozen` it takes bytes and passes none on, and closes nothing.
    """

    def __init__(self, *, user: str = "", password: str = "", answer: bytes = b"") -> None:
        self.asked: list[str] = []
        self.answer = answer
        self.frozen = asyncio.Event()
        self._wanted = base64.b64encode(f"{user}:{password}".encode()) if user else b""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ConnectProxy:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def proxy(self) -> Proxy:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return Proxy(host, port)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError):
            pass  # one end is gone, and the other is told by closing
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        address = head.split(b" ")[1].decode()
        self.asked.append(address)
        if self.answer:
            writer.write(self.answer)
            await writer.drain()
            return
        if self._wanted and b"Basic " + self._wanted not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            await writer.drain()
            return
        host, _, port = address.rpartition(":")
        there_reader, there = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ways = {
                asyncio.create_task(self._pass_on(reader, there)),
                asyncio.create_task(self._pass_on(there_reader, writer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            there.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.frozen.is_set():
                continue
            writer.write(data)
            await writer.drain()
