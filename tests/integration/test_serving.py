"""What stands in the way of a second controller, and how a refused start ends."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from controller import clock
from controller.app import Controller
from controller.authority.init import initialise
from controller.config import ControllerHome
from protocol.errors import Code, SteadError
from tests.integration.conftest import Installation


def another(home: Path, listen: str) -> None:
    initialise(
        home,
        names=["127.0.0.1"],
        now=clock.now(),
        listen=listen,
        enroll_listen="127.0.0.1:0",
    )


async def test_a_second_controller_on_the_port_fails_clearly_and_holds_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    home = tmp_path / "second"
    another(home, installation.link_address)
    with pytest.raises(SteadError) as caught:
        await Controller.serve(home)
    assert caught.value.code is Code.PRECONDITION
    assert installation.link_address in str(caught.value)
    free = msgspec.structs.replace(
        ControllerHome(home / "controller").load_settings(), listen="127.0.0.1:0"
    )
    await (await Controller.serve(home, free)).stop()


async def test_a_second_controller_on_the_home_is_told_which_process_has_it(
    installation: Installation,
) -> None:
    with pytest.raises(SteadError) as caught:
        await Controller.serve(installation.home)
    assert caught.value.code is Code.LOCKED
    assert str(os.getpid()) in str(caught.value)


async def test_where_nothing_was_made_serving_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SteadError) as caught:
        await Controller.serve(tmp_path)
    assert caught.value.code is Code.PRECONDITION
    assert "stead controller init" in str(caught.value)


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:99999", ":7443", "a:b"])
async def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    another(tmp_path, listen)
    with pytest.raises(SteadError) as caught:
        await Controller.serve(tmp_path)
    assert caught.value.code is Code.INVALID
    assert listen in str(caught.value)
