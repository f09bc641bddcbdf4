"""Two addresses of one Ray, and what to do about one that cannot be joined."""

from __future__ import annotations

import socket

import pytest
from ray.util import get_node_ip_address

from fused_ray.engine.session import _remedy, same_address

HERE = ("127.0.0.1", "localhost", "LOCALHOST", "127.0.1.1", "0.0.0.0", socket.gethostname(), get_node_ip_address())


@pytest.mark.parametrize("one", HERE)
@pytest.mark.parametrize("other", HERE)
def test_names_of_this_machine_are_one(one: str, other: str) -> None:
    assert same_address(f"{one}:6379", f" {other}:6379")
    assert not same_address(f"{one}:6379", f"{other}:6380")


@pytest.mark.parametrize("other", ["198.51.100.7", "[2001:db8::7]", "nowhere.invalid", "a..b", ""])
def test_another_machine_is_another_one(other: str) -> None:
    assert same_address(f"{other}:6379", f"{other}:6379")
    for here in HERE:
        assert not same_address(f"{other}:6379", f"{here}:6379")
        assert not same_address(f"{here}:6379", f"{other}:6379")


@pytest.mark.parametrize("word", ["local", "localhost", "auto"])
def test_what_names_no_port_is_no_address(word: str) -> None:
    assert not same_address(word, "127.0.0.1:6379")


def test_who_cannot_join_hears_of_the_token_too() -> None:
    """Ray says no more than this to one that sends none."""
    said = _remedy("Failed to connect to Ray cluster at 192.0.2.2:7711", private=False)
    assert "RAY_AUTH_MODE=token" in said
    assert "is the address right" in said
