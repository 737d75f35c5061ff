"""The handlers of a namespace as the methods of an object."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ReservedEventError, Server, event

from ..wire_client import settle
from .support import dismissed, open_server, unanswered

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_socketio import Socket


class Chat:
    """Notes what it is called with."""

    def __init__(self, greeting: str = "welcome") -> None:
        self.greeting = greeting
        self.calls: list[tuple[Any, ...]] = []

    async def on_connect(self, socket: Socket) -> None:
        await socket.join("lobby")
        self.calls.append(("connect", socket))
        await socket.emit("greeting", self.greeting)

    def on_disconnecting(self, socket: Socket, reason: str) -> None:
        self.calls.append(("disconnecting", socket, reason, "lobby" in socket.rooms))

    async def on_disconnect(self, socket: Socket, reason: str, description: str | None) -> None:
        await trio.sleep(1)
        self.calls.append(("disconnect", socket, reason, description))

    async def on_say(self, socket: Socket, text: str) -> str:
        self.calls.append(("say", socket, text))
        return self._decorate(text)

    def on_count(self, socket: Socket, *numbers: int) -> int:
        return len(numbers)

    @event("chat message")
    @event(7)
    def anything(self, socket: Socket, text: str) -> str:
        return f"message {text}"

    @event("renamed")
    def on_hidden(self, socket: Socket) -> str:
        return "renamed"

    def _decorate(self, text: str) -> str:
        return f"<{text}>"

    def on_(self) -> None:
        """No event has no name."""

    def helper(self, socket: Socket) -> str:
        return "never for clients"

    @property
    def dangerous(self) -> str:
        raise AssertionError("nobody reads this")


async def test_the_methods_of_an_object_handle_the_life_and_the_events_of_sockets() -> None:
    io = Server()
    chat = io.of("/chat").add_handlers(Chat("hello"))
    async with open_server(io) as server:
        client, socket = await server.connect("/chat")
        assert await client.receive_all() == [("greeting", "hello")]

        assert await client.emit_with_ack("say", "hi") == "<hi>"
        assert await client.emit_with_ack("count", 1, 2, 3) == 3

        await socket.disconnect()
        reason = "server namespace disconnect"
        assert chat.calls == [
            ("connect", socket),
            ("say", socket, "hi"),
            ("disconnecting", socket, reason, True),
            ("disconnect", socket, reason, None),
        ]


async def test_all_sockets_share_the_object() -> None:
    io = Server()
    chat = io.add_handlers(Chat())
    async with open_server(io) as server:
        pairs = await server.connect_many(3)
        for client, _ in pairs:
            await client.emit("say", "hi")
        await settle()

        said = [call[1] for call in chat.calls if call[0] == "say"]

        assert said == [socket for _, socket in pairs]


@pytest.mark.parametrize("name", ["chat message", 7])
async def test_events_whose_names_are_no_identifiers_are_named_by_a_decorator(name: str | int) -> None:
    io = Server()
    io.add_handlers(Chat())
    async with open_server(io) as server:
        client = await server.client()

        assert await client.emit_with_ack(name, "x") == "message x"


async def test_a_method_with_a_named_event_has_no_other_name() -> None:
    io = Server()
    io.add_handlers(Chat())
    async with open_server(io) as server:
        client = await server.client()
        await client.receive_all()

        assert await unanswered(client, "hidden")
        assert await client.emit_with_ack("renamed") == "renamed"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "helper",
        "_decorate",
        "on_say",
        "on_connect",
        "on_disconnect",
        "anything",
        "dangerous",
        "greeting",
        "calls",
        "connection",
        "add_handlers",
        "__init__",
        "__class__",
        "__dict__",
        "_trio_socketio_events",
    ],
)
async def test_clients_reach_nothing_by_the_name_of_an_attribute(name: str) -> None:
    io = Server(handler_errors="raise")
    chat = io.add_handlers(Chat())
    async with open_server(io) as server:
        client = await server.client()
        await client.receive_all()

        assert await unanswered(client, name, "x")
        assert [call[0] for call in chat.calls] == ["connect"]


@pytest.mark.parametrize("name", ["connect", "disconnect", "disconnecting"])
async def test_clients_cannot_call_the_handlers_of_a_sockets_life(name: str) -> None:
    io = Server()
    chat = io.add_handlers(Chat())
    async with open_server(io) as server:
        client, socket = await server.connect()
        calls = len(chat.calls)

        assert socket.take_listeners(name) == ()  # what other parsers might let through
        await client.send_raw(f'42["{name}","x"]')  # what ours refuses, with the end of the session
        await socket.wait_ended()

        assert [(call[0], call[2]) for call in chat.calls[calls:]] == [
            ("disconnecting", "forced close"),
            ("disconnect", "forced close"),
        ]


async def test_a_connect_method_that_fails_disconnects_the_socket() -> None:
    class Strict:
        def on_connect(self, socket: Socket) -> None:
            raise ValueError("not you")

    io = Server()
    told: list[Exception] = []
    io.on_error(lambda error: told.append(error))
    io.add_handlers(Strict())
    async with open_server(io) as server:
        client = await server.client()

        assert await dismissed(client)
        assert [str(error) for error in told] == ["not you"]


async def test_methods_are_inherited_and_overridden_with_the_names_of_their_events() -> None:
    class Polite(Chat):
        async def on_say(self, socket: Socket, text: str) -> str:
            return "please " + await super().on_say(socket, text)

        def anything(self, socket: Socket, text: str) -> str:
            return f"polite {text}"

    io = Server()
    io.add_handlers(Polite())
    async with open_server(io) as server:
        client = await server.client()

        assert await client.emit_with_ack("say", "x") == "please <x>"
        assert await client.emit_with_ack("chat message", "y") == "polite y"


async def test_static_and_class_methods_handle_too() -> None:
    class Tools:
        @staticmethod
        def on_double(socket: Socket, value: int) -> int:
            return value * 2

        @classmethod
        async def on_who(cls, socket: Socket) -> str:
            return cls.__name__

    io = Server()
    io.add_handlers(Tools())
    async with open_server(io) as server:
        client = await server.client()

        assert await client.emit_with_ack("double", 2) == 4
        assert await client.emit_with_ack("who") == "Tools"


async def test_several_objects_may_handle_one_namespace_and_one_object_several() -> None:
    class Echo:
        def on_echo(self, socket: Socket, value: Any) -> Any:
            return value

    io = Server()
    echo = Echo()
    io.add_handlers(Chat())
    io.add_handlers(echo)
    io.of("/other").add_handlers(echo)
    async with open_server(io) as server:
        main, _ = await server.connect()
        other, _ = await server.connect("/other")

        assert await main.emit_with_ack("echo", 1) == 1
        assert await main.emit_with_ack("count") == 0
        assert await other.emit_with_ack("echo", 2) == 2


async def test_a_parent_gives_the_handlers_to_its_children() -> None:
    io = Server()
    chat = io.of(re.compile("^/room-")).add_handlers(Chat())
    async with open_server(io) as server:
        client, socket = await server.connect("/room-1")

        assert await client.emit_with_ack("count") == 0
        assert chat.calls == [("connect", socket)]


# Registering


class TooMany:
    def on_connect(self, socket: Socket, auth: Any) -> None: ...


class NoSocket:
    def on_say(self) -> None: ...


class TooManyAtTheEnd:
    def on_disconnect(self, socket: Socket, reason: str, description: str, more: Any) -> None: ...


class Keyword:
    async def on_say(self, socket: Socket, *, text: str) -> None: ...


class Attribute:
    on_say = "text"


class Property:
    @property
    def on_say(self) -> None:
        raise AssertionError("nobody reads this")


class Nothing:
    def say(self, socket: Socket) -> None: ...


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (TooMany(), r'"connect" is called with 1 arguments, but .*TooMany.* needs 2'),
        (NoSocket(), r'"say" is called with the socket first, but NoSocket.on_say takes no arguments'),
        (TooManyAtTheEnd(), r'"disconnect" is called with 3 arguments, but .* needs 4'),
        (Keyword(), r"needs the keyword argument 'text'"),
        (Attribute(), r"Attribute.on_say is not a method"),
        (Property(), r"Property.on_say is not a method"),
        (Nothing(), r"has no handlers"),
        (Chat, r"add_handlers\(Chat\(\.\.\.\)\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_handle_is_refused_when_it_is_registered(target: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Server().add_handlers(target)


class Connection:
    def on_connection(self, socket: Socket) -> None: ...


class ConnectError:
    def on_connect_error(self, socket: Socket) -> None: ...


@pytest.mark.parametrize("target", [Connection(), ConnectError()])
def test_methods_for_what_clients_cannot_send_are_refused(target: Any) -> None:
    with pytest.raises(ReservedEventError):
        Server().add_handlers(target)


@pytest.mark.parametrize("name", ["connect", "connection", "connect_error"])
def test_a_decorator_for_what_clients_cannot_send_is_refused(name: str) -> None:
    with pytest.raises(ReservedEventError, match=name):
        event(name)


async def test_of_an_object_that_is_refused_nothing_is_registered() -> None:
    class Half:
        def on_connect(self, socket: Socket) -> None:
            raise AssertionError("not registered")

        def on_good(self, socket: Socket) -> str:
            return "not registered"

        def on_zealous(self) -> None: ...

    io = Server()
    with pytest.raises(TypeError, match="zealous"):
        io.add_handlers(Half())
    async with open_server(io) as server:
        client = await server.client()

        assert await unanswered(client, "good")


def test_the_object_and_the_decorated_function_come_back_as_they_are() -> None:
    def method(self: object, socket: Socket) -> None: ...

    chat = Chat()
    decorate: Callable[[Any], Any] = event("x")

    assert Server().add_handlers(chat) is chat
    assert decorate(method) is method
