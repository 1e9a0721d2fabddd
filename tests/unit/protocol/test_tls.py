"""Addresses as they are typed."""

from __future__ import annotations

import pytest

from controller.rpc.server import check_listen
from protocol.address import split_address
from protocol.errors import Code, SteadError


def test_an_address_is_a_host_and_a_port() -> None:
    assert split_address("stead.example.com:7443") == ("stead.example.com", 7443)
    assert split_address("[::1]:1") == ("::1", 1)
    check_listen("0.0.0.0:0")


@pytest.mark.parametrize("text", ["", ":1", "a", "a:", "a:x", "a:²", "a:٣", "a:65536", "a:-1"])
def test_anything_else_is_named_as_no_address(text: str) -> None:
    for read in (split_address, check_listen):
        with pytest.raises(SteadError) as caught:
            read(text)
        assert caught.value.code is Code.INVALID
