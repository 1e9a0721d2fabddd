from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import AgentHome, Settings, render_settings
from protocol.errors import Code, SteadError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(
    settings=st.builds(
        Settings,
        TEXT,
        TEXT,
        st.lists(TEXT, max_size=3).map(tuple),
        limit_upload=st.integers(0, 1 << 60),
        limit_download=st.integers(0, 1 << 60),
        cpu_limit=st.integers(0, 1 << 60),
    )
)
def test_any_settings_are_read_as_they_were_written(settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = AgentHome(Path(directory))
        home.settings.write_bytes(render_settings(settings))
        assert home.load_settings() == settings


def test_settings_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    home.settings.write_bytes(b'deny = ["\xff"]\n')
    with pytest.raises(SteadError, match="not UTF-8") as caught:
        home.load_settings()
    assert caught.value.code is Code.INVALID
    home.settings.unlink()
    home.settings.mkdir()
    with pytest.raises(SteadError, match="cannot be read") as caught:
        home.load_settings()
    assert caught.value.code is Code.PRECONDITION
