from __future__ import annotations

import io
import json

import pytest

from agent.host import log


class Full(io.StringIO):
    """A log on a disk that is full."""

    tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full()
    monkeypatch.setattr("sys.stderr", full)
    log.warning("something_happened")
    assert full.tried == 1


def test_a_line_takes_what_json_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    log.info("something_happened", reason=b"caf\xe9\n".decode("utf-8", "surrogateescape"))
    assert said.getvalue().count("\n") == 1
    assert json.loads(said.getvalue())["reason"] == "caf\\udce9\n"
