"""Settings are read back as they were written, and a mistake in them is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import default_home as agents_default_home
from controller.config import (
    ControllerHome,
    OperatorHome,
    OperatorSettings,
    Settings,
    default_home,
    render_settings,
)
from protocol.errors import Code, SteadError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(TEXT, min_size=1, max_size=3), TEXT, TEXT)
def test_settings_are_read_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], link: str, objects: str
) -> None:
    home = ControllerHome(tmp_path_factory.mktemp("home"))
    settings = Settings(names=tuple(names), link_address=link, objects=objects)
    home.settings.write_text(render_settings(settings), newline="")
    assert home.load_settings() == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('names = ["a"]\nlistn = "x"', "listn"),
        ('names = "a"', "names"),
        ('listen = "x"', "names"),
        ("names = [", "config.toml"),
        ("names = [1]", "names"),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    home = ControllerHome(tmp_path)
    home.settings.write_text(text)
    with pytest.raises(SteadError) as caught:
        home.load_settings()
    assert caught.value.code is Code.INVALID
    assert str(home.settings) in str(caught.value)
    assert said in str(caught.value)


def test_bytes_that_are_no_text_are_named_with_their_file(tmp_path: Path) -> None:
    home = OperatorHome(tmp_path)
    home.settings.write_bytes(b"\xff\xfe")
    with pytest.raises(SteadError, match=str(home.settings)):
        home.load_settings()


def test_what_is_missing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SteadError, match="stead controller init"):
        ControllerHome(tmp_path).load_settings()
    with pytest.raises(SteadError, match="stead operator add"):
        OperatorHome(tmp_path).load_settings()


def test_an_operators_settings_are_read_back(tmp_path: Path) -> None:
    home = OperatorHome(tmp_path)
    home.settings.write_text(render_settings(OperatorSettings(address="host:7443")))
    assert home.load_settings() == OperatorSettings(address="host:7443")


def test_both_programs_keep_their_state_below_one_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STEAD_HOME", raising=False)
    assert default_home() == agents_default_home()
    monkeypatch.setenv("STEAD_HOME", str(tmp_path))
    assert default_home() == agents_default_home() == tmp_path
