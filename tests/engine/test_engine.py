"""The engine itself: its life, its paths, and what it listens to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_socketio import NotRunning
from trio_socketio.engineio import Engine

from ..wire_client import WEBSOCKET_HEADERS, Net, count_tasks, open_app
from .stage import POLLING, WEBSOCKET, echo, open_stage

if TYPE_CHECKING:
    from pathlib import Path

    from trio_socketio.engineio import Session


# Running


async def test_engine_that_is_not_running_answers_503_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async with open_app(Engine(), running=False) as net:
        for _ in range(3):
            assert (await net.get(POLLING)).status == 503
            assert (await net.request("GET", WEBSOCKET, WEBSOCKET_HEADERS)).status == 503
    (record,) = caplog.records
    assert (record.levelno, "not running" in record.getMessage()) == (logging.ERROR, True)


async def test_running_twice_is_an_error_and_the_first_goes_on() -> None:
    async with open_stage() as stage:
        with pytest.raises(RuntimeError, match="running already"):
            async with stage.engine.running():
                raise AssertionError("it was entered")
        client = await stage.net.polling()
        await client.send("4x")
        assert await stage.session.receive() == "x"


async def test_engine_may_run_again_afterwards() -> None:
    engine = Engine()
    for _ in range(2):
        async with open_app(engine) as net:
            await net.polling()
            assert engine.clients_count == 1
        assert engine.clients_count == 0
        assert not engine.is_running


async def test_run_is_running_when_start_returns() -> None:
    engine = Engine()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        assert engine.is_running
        nursery.cancel_scope.cancel()
    assert not engine.is_running


async def test_drain_needs_a_running_engine() -> None:
    with pytest.raises(NotRunning):
        await Engine().drain(1)


async def test_close_without_running_is_nothing() -> None:
    engine = Engine()
    await engine.close()
    assert engine.clients_count == 0


async def test_exception_inside_running_comes_out_as_itself() -> None:
    engine = Engine()
    with pytest.raises(ZeroDivisionError):
        async with engine.running():
            raise ZeroDivisionError
    assert not engine.is_running


async def test_serve_tcp_serves_real_clients_and_ends_with_its_scope() -> None:
    engine = Engine()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(lambda **kwargs: engine.serve_tcp(0, host="127.0.0.1", **kwargs))
        stream = await trio.testing.open_stream_to_socket_listener(listeners[0])
        await stream.send_all(b"GET /engine.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        assert engine.clients_count == 1
        assert next(iter(engine.sessions.values())).remote_address == "127.0.0.1"
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()
    assert engine.clients_count == 0


# Paths


@pytest.mark.parametrize(
    ("options", "path", "status"),
    [
        ({}, "/engine.io/", 200),
        ({}, "/engine.io/default/", 200),
        ({}, "/engine.io", 404),
        ({}, "/other/", 404),
        ({}, "/engine.iox/", 404),
        ({"path": "/deep/er/"}, "/deep/er/", 200),
        ({"path": "/deep/er"}, "/engine.io/", 404),
        ({"add_trailing_slash": False}, "/engine.io", 200),
        ({"add_trailing_slash": False}, "/engine.io/", 200),
        ({"add_trailing_slash": False}, "/engine.io/foo/bar/", 200),
        ({"add_trailing_slash": False}, "/engine.iox", 200),
        ({"add_trailing_slash": False}, "/engine.i", 404),
        ({"add_trailing_slash": False}, "/other", 404),
        ({"add_trailing_slash": False, "path": "/deep/er/"}, "/deep/er", 200),
        ({"add_trailing_slash": True, "path": "/deep/er/"}, "/deep/er", 404),
    ],
)
async def test_engine_answers_below_its_path(options: dict[str, Any], path: str, status: int) -> None:
    async with open_stage(**options) as stage:
        response = await stage.net.get(f"{path}?EIO=4&transport=polling")
        assert response.status == status
        assert len(stage.sessions) == (status == 200)


async def test_session_lives_at_a_path_without_its_slash() -> None:
    engine = Engine(add_trailing_slash=False)
    echo(engine)
    async with open_app(engine) as net:
        net.path = "/engine.io"
        client = await net.polling()
        await client.send("4one")
        assert await client.recv() == "4one"
        upgraded = await client.upgrade()
        await upgraded.send("4two")
        assert await upgraded.recv() == "4two"
        alone = await net.engine_websocket()
        await alone.send("4three")
        assert await alone.recv() == "4three"


async def test_path_without_its_slash_is_for_files_if_it_is_not_the_engines(tmp_path: Path) -> None:
    (tmp_path / "engine.io").write_text("a file")
    for add_trailing_slash, status in ((True, 200), (False, 400)):
        async with open_stage(add_trailing_slash=add_trailing_slash, static_files=tmp_path) as stage:
            assert (await stage.net.get("/engine.io")).status == status


async def test_unknown_path_is_404_with_a_hint() -> None:
    async with open_stage() as stage:
        response = await stage.net.get("/socket.io/?EIO=4&transport=polling")
        assert response.status == 404
        assert "path" in response.text
        refused = await stage.net.request("GET", "/socket.io/?EIO=4&transport=websocket", WEBSOCKET_HEADERS)
        assert refused.status == 404
        assert not stage.errors


async def test_static_files_are_served_beside_the_engine(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>hello</h1>")
    (tmp_path / "engine.io").mkdir()
    (tmp_path / "engine.io" / "index.html").write_text("hidden")
    async with open_stage(static_files=tmp_path) as stage:
        assert (await stage.net.get("/")).text == "<h1>hello</h1>"
        assert (await stage.net.get("/nothing")).status == 404
        assert (await stage.net.get("/../" + tmp_path.name + "/index.html")).status in (400, 404)
        assert (await stage.net.get("/engine.io/index.html")).status == 400
        assert (await stage.net.polling()).sid in stage.engine.sessions


async def test_two_engines_on_different_paths_do_not_know_of_each_other() -> None:
    async with open_stage() as one:
        client = await one.net.polling()
        async with open_stage(path="/two") as two:
            assert (await two.net.get(f"{POLLING}&sid={client.sid}")).json()["code"] == 1
            assert (one.engine.clients_count, two.engine.clients_count) == (1, 0)


# Listeners


def test_unknown_event_is_an_error_that_names_the_events() -> None:
    with pytest.raises(ValueError, match="connection_error"):
        Engine().on("conection", print)


@pytest.mark.parametrize("event", ["connection_error", "initial_headers", "headers"])
def test_listeners_in_the_middle_of_an_answer_must_be_plain_functions(event: str) -> None:
    async def listener(*args: object) -> None:
        pass

    with pytest.raises(TypeError, match="plain function"):
        Engine().on(event, listener)


def test_listener_that_needs_more_than_it_is_given_is_refused_when_it_is_registered() -> None:
    def listener(session: Session, more: object) -> None:
        pass

    with pytest.raises(TypeError, match="needs 2"):
        Engine().on("connection", listener)


# Many clients


async def test_hundreds_of_clients_coming_and_going_log_nothing_and_leave_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_stage(ping_interval=2, ping_timeout=1) as stage:
        tasks = count_tasks()

        async def come_and_go(net: Net, number: int) -> None:
            client = await (net.polling() if number % 2 else net.engine_websocket())
            match number % 5:
                case 0:
                    await client.close()
                case 1:
                    await client.drop()
                case 2:
                    await client.send("4x")
                case 3:
                    await client.recv()
                case _:
                    stage.engine.sessions[client.sid].close()

        for start in range(0, 300, 30):
            async with trio.open_nursery() as nursery:
                for number in range(start, start + 30):
                    nursery.start_soon(come_and_go, stage.net, number)
        await trio.sleep(100)
        assert stage.engine.clients_count == 0
        assert len(stage.sessions) == 300
        assert count_tasks() == tasks
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
