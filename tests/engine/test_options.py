"""The options of an engine: what is wrong is said at once, and how to say it right."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from trio_socketio import EngineConfig
from trio_socketio.engineio import Cookie, Engine


def test_defaults_are_those_of_the_reference_in_seconds_and_bytes() -> None:
    config = Engine().config
    assert (config.path, config.add_trailing_slash) == ("/engine.io", True)
    assert (config.ping_interval, config.ping_timeout, config.upgrade_timeout) == (25.0, 20.0, 10.0)
    assert (config.close_timeout, config.max_http_buffer_size) == (30.0, 1_000_000)
    assert (config.transports, config.allow_upgrades) == (("polling", "websocket"), True)
    assert (config.allow_request, config.initial_packet, config.cors, config.cookie) == (None, None, None, None)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("pingInterval", "ping_interval"),
        ("ping_intervall", "ping_interval"),
        ("maxHttpBufferSize", "max_http_buffer_size"),
        ("allowRequest", "allow_request"),
        ("transport", "transports"),
    ],
)
def test_option_that_does_not_exist_suggests_the_one_that_was_meant(wrong: str, right: str) -> None:
    options: dict[str, Any] = {wrong: 1}
    with pytest.raises(TypeError, match=f"no option '{wrong}'; did you mean '{right}'"):
        Engine(**options)


def test_option_that_resembles_nothing_has_no_suggestion() -> None:
    options: dict[str, Any] = {"zzz": 1}
    with pytest.raises(TypeError, match=r"no option 'zzz'$"):
        Engine(**options)


NUMBERS = [
    "ping_interval",
    "ping_timeout",
    "upgrade_timeout",
    "close_timeout",
    "max_http_buffer_size",
    "max_outbox_bytes",
    "max_outbox_packets",
    "max_inbox_messages",
]


@pytest.mark.parametrize("value", [0, -1, "25", None, True, float("nan")])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_must_be_numbers_above_zero(name: str, value: object) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        Engine(**options)


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout", "max_http_buffer_size"])
def test_what_the_client_is_told_must_be_something_that_can_be_told(name: str) -> None:
    options: dict[str, Any] = {name: float("inf")}
    with pytest.raises(ValueError, match=name):
        Engine(**options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"path": "engine.io"}, ValueError, "begin with a slash"),
        ({"path": "/"}, ValueError, "at least one segment"),
        ({"transports": []}, ValueError, "at least one"),
        ({"transports": ["polling", "tobi"]}, ValueError, "no such transport: 'tobi'"),
        ({"transports": "webtransport"}, ValueError, "no such transport"),
        ({"max_http_buffer_size": 1e6}, ValueError, "whole number"),
        ({"allow_request": True}, TypeError, "allow_request"),
        ({"initial_packet": 5}, TypeError, "initial_packet must be text or bytes, not 5"),
        ({"cookie": 7}, TypeError, "cookie"),
        ({"cors": True}, TypeError, "cors"),
        ({"cors": "example.com"}, ValueError, "not an origin"),
    ],
)
def test_wrong_value_is_refused_with_its_reason(options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Engine(**options)


def test_one_transport_may_be_given_by_its_name() -> None:
    assert Engine(transports="websocket").config.transports == ("websocket",)


def test_slash_at_the_end_of_the_path_makes_no_difference() -> None:
    assert Engine(path="/x/").config.path == Engine(path="/x").config.path == "/x"


def test_cookie_of_true_is_the_default_cookie() -> None:
    assert Engine(cookie=True).config.cookie == Cookie()


def test_configuration_is_immutable() -> None:
    config = Engine().config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ping_interval = 1  # type: ignore[misc]


def test_every_option_is_documented() -> None:
    documentation = inspect.getdoc(EngineConfig) or ""
    for name in EngineConfig.names():
        assert f"\n    {name}: " in documentation, name
