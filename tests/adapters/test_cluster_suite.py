"""Every operation between servers, over every bus."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, LocalProtocolError, RemoteSocket, SocketDisconnected

from .cluster_suite import LIMIT, adapter_of, assert_idle, eventually, heard, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_socketio import Server

    from .cluster_suite import Place

#: Seconds, within which those who answer at once have done so.
SOON = 0.5

DATA = [1, "zwei ☃", 2.5, None, True, {"a": [{"b": -1}]}]
BYTES = [b"\x00\xff", {"nested": [b"more"]}]


# Broadcasts


@pytest.mark.parametrize("args", [DATA, BYTES, []], ids=["data", "bytes", "nothing"])
async def test_a_broadcast_reaches_every_client_of_every_server_once(place: Place, args: list[Any]) -> None:
    async with place.crowd("one", "two", "three") as users:
        await users[0].io.emit("hello", *args)
        assert await heard(users, users[0].io) == [[["hello", *args]]] * 3


async def test_a_broadcast_stays_in_its_namespace(place: Place) -> None:
    async with place.joined("one", "two") as (one, two):
        for io in (one.io, two.io):
            io.of("/news")
        users = [await one.connect(), await two.connect()]
        readers = [await one.connect("/news"), await two.connect("/news")]
        await one.io.of("/news").emit("extra")
        assert [await reader.hear() for reader in readers] == [["extra"]] * 2
        assert await heard(users, one.io) == [[], []]


async def test_a_namespace_that_is_made_late_is_a_member_as_well(place: Place) -> None:
    async with place.joined("one", "two") as (one, two):
        for member in (one, two):
            member.io.of("/late")
        reader = await two.connect("/late")
        await one.connect("/late")
        await one.io.of("/late").emit("extra")
        assert await reader.hear() == ["extra"]


async def test_a_namespace_that_comes_and_goes_is_a_member_each_time(place: Place) -> None:
    place.server_options["cleanup_empty_child_namespaces"] = True
    async with place.joined("one", "two") as members:
        for member in members:
            member.io.of(re.compile("^/sometimes$"))
        for _ in range(2):
            users = [await member.connect("/sometimes") for member in members]
            await users[0].socket.join("room")
            await users[1].socket.broadcast.emit("hear")
            assert await users[0].hear() == ["hear"]
            assert await members[0].io.of("/sometimes").adapter.server_count() == 2
            for user in users:
                await user.client.disconnect()
            await until(lambda: not any("/sometimes" in member.io.namespaces for member in members))


async def test_rooms_are_a_union_and_exceptions_are_left_out(place: Place) -> None:
    async with place.crowd("one", "two", "three") as users:
        one, two, three = users
        await one.socket.join(["a", "b"])
        await two.socket.join(["a", "b"])
        await three.socket.join(["a", "c"])
        await one.io.to("a").emit("in a")
        await one.io.to(["a", "b"]).except_("c").emit("in a or b, not c")
        await one.io.except_("c").emit("not c")
        expected = [["in a"], ["in a or b, not c"], ["not c"]]
        assert await heard(users, one.io) == [expected, expected, [["in a"]]]


async def test_a_socket_id_is_a_room_and_a_socket_s_broadcast_leaves_it_out(place: Place) -> None:
    async with place.crowd("one", "two", "three") as users:
        one, two, _ = users
        await one.io.to(two.socket.id).emit("private")
        await one.socket.to(two.socket.id).emit("from one")
        await one.socket.broadcast.emit("others")
        assert await heard(users, one.io) == [[], [["private"], ["from one"], ["others"]], [["others"]]]


async def test_a_local_broadcast_publishes_nothing(place: Place) -> None:
    async with place.crowd("one", "two") as users:
        before = users[0].member.adapter.statistics().published
        await users[0].io.local.emit("here")
        assert users[0].member.adapter.statistics().published == before
        assert await heard(users, users[0].io) == [[["here"]], []]


async def test_a_volatile_and_uncompressed_broadcast_arrives(place: Place) -> None:
    async with place.crowd("one", "two") as users:
        await users[0].io.volatile.compress(False).emit("now")
        assert await heard(users, users[0].io) == [[["now"]]] * 2


@pytest.mark.parametrize("room", ["room", "123", "with#hash", "*", "ünï", "x" * 20, "y" * 300])
async def test_who_has_joined_hears_what_is_sent_right_after(place: Place, room: str) -> None:
    async with place.crowd("one", "two") as (one, two):
        for number in range(3):
            await two.socket.join(room)
            await one.io.to(room).emit("hear", number)
            assert await two.hear() == ["hear", number]
            await two.socket.leave(room)


async def test_a_room_that_is_left_and_joined_in_one_go_still_hears(place: Place) -> None:
    async with place.crowd("one", "two") as (one, two):
        await two.socket.join("room")
        await two.socket.leave("room")
        await two.socket.join("room")
        await one.io.to("room").emit("hear")
        assert await two.hear() == ["hear"]


async def test_the_second_member_of_a_room_waits_for_its_beginning_as_the_first_does(place: Place) -> None:
    async with place.joined("one", "two") as (one, two):
        first, second = await two.connect(), await two.connect()

        async def join_and_ask() -> None:
            await second.socket.join("room")
            await one.io.to("room").emit("hear")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.socket.join, "room")
            nursery.start_soon(join_and_ask)
        assert [await first.hear(), await second.hear()] == [["hear"]] * 2


async def test_what_is_emitted_before_a_disconnection_arrives_before_it(place: Place) -> None:
    async with place.crowd("one", "two") as (one, two):
        await one.io.emit("bye")
        await one.io.disconnect_sockets()
        assert await two.hear() == ["bye"]
        with trio.fail_after(LIMIT):
            assert await two.client.wait_disconnected() == "io server disconnect"


# Acknowledgements


@pytest.mark.parametrize("answers", [("a", {"b": 1}, None), (b"a", b"", [b"c"])], ids=["data", "bytes"])
async def test_a_broadcast_collects_the_answer_of_every_client(place: Place, answers: tuple[Any, ...]) -> None:
    async with place.crowd("one", "two", "three") as users, trio.open_nursery() as nursery:
        for user, answer in zip(users, answers, strict=True):
            nursery.start_soon(user.reply, answer)
        found = await users[0].io.timeout(LIMIT).emit_with_ack("ask")
        assert sorted(found, key=repr) == sorted(answers, key=repr)
        assert_idle(users[0].member.adapter)


async def test_answers_can_be_had_as_they_come(place: Place) -> None:
    async with place.crowd("one", "two") as users, users[0].io.timeout(LIMIT).acks("ask") as answers:
        for user in reversed(users):
            await user.reply(user.member.name)
            assert await answers.receive() == user.member.name
        with pytest.raises(trio.EndOfChannel):
            await answers.receive()


async def test_a_broadcast_to_nobody_has_no_answers(place: Place) -> None:
    async with place.joined("one", "two") as (one, _):
        with trio.fail_after(LIMIT):
            assert await one.io.emit_with_ack("ask") == []


async def test_a_broadcast_that_times_out_tells_what_it_has_got(place: Place) -> None:
    async with place.crowd("one", "two", "three") as users, trio.open_nursery() as nursery:
        nursery.start_soon(users[1].reply, "two")
        with pytest.raises(AckTimeout) as caught:
            await users[0].io.timeout(SOON).emit_with_ack("ask")
        assert caught.value.responses == ["two"]
        assert caught.value.missing == 2
        assert_idle(users[0].member.adapter)
        await until(lambda: not users[2].member.adapter.statistics().collecting)


async def test_a_local_broadcast_waits_for_local_clients_only(place: Place) -> None:
    async with place.crowd("one", "two") as (one, two), trio.open_nursery() as nursery:
        nursery.start_soon(one.reply, "here")
        assert await one.io.local.timeout(LIMIT).emit_with_ack("ask") == ["here"]
        assert await heard([two], one.io) == [[]]


async def test_a_client_that_goes_is_not_waited_for(place: Place) -> None:
    async with place.crowd("one", "two") as (one, two), trio.open_nursery() as nursery:
        nursery.start_soon(one.reply, "one")

        async def leave() -> None:
            await two.hear()
            await two.client.disconnect()

        nursery.start_soon(leave)
        assert await one.io.timeout(LIMIT).emit_with_ack("ask") == ["one"]
        assert_idle(one.member.adapter)
        assert_idle(two.member.adapter)


# What is done to sockets


async def test_sockets_of_all_servers_join_leave_and_are_disconnected(place: Place) -> None:
    async with place.crowd("one", "two", "three") as users:
        one, two, three = users
        await one.io.sockets_join(["a", "b"])
        await until(lambda: all(user.socket.rooms >= {"a", "b"} for user in users))
        await two.io.to(one.socket.id).sockets_leave("a")
        await until(lambda: "a" not in one.socket.rooms)
        await three.io.to("a").except_(three.socket.id).sockets_join("c")
        await until(lambda: "c" in two.socket.rooms)
        assert [sorted(user.socket.rooms & {"a", "b", "c"}) for user in users] == [["b"], ["a", "b", "c"], ["a", "b"]]
        await one.io.to("c").disconnect_sockets(True)
        await until(lambda: not two.socket.connected)
        assert [one.socket.connected, two.socket.connected, three.socket.connected] == [True, False, True]


async def test_local_operations_are_done_here_only(place: Place) -> None:
    async with place.crowd("one", "two") as users:
        await users[0].io.local.sockets_join("a")
        await users[0].io.local.sockets_leave(users[0].socket.id)
        await users[0].io.local.disconnect_sockets()
        assert await heard([users[1]], users[0].io) == [[]]
        assert users[1].socket.rooms == {users[1].socket.id}


async def test_a_join_that_waits_is_done_everywhere_when_it_returns(place: Place) -> None:
    async with place.crowd("one", "two", "three") as users:
        await users[0].io.sockets_join("a", wait=True)
        assert all("a" in user.socket.rooms for user in users)
        await users[0].io.to("a").emit("hear")
        assert await heard(users, users[0].io) == [[["hear"]]] * 3
        await users[0].io.to(users[2].socket.id).sockets_leave("a", wait=True)
        assert ["a" in user.socket.rooms for user in users] == [True, True, False]
        assert_idle(users[0].member.adapter)


async def test_sockets_of_all_servers_are_found_with_what_is_known_of_them(place: Place) -> None:
    async with place.joined("one", "two") as (one, two):
        here, there = await one.connect(), await two.connect(auth={"token": "t"})
        there.socket.data = {"name": "bob", "raw": b"\x01"}
        await there.socket.join("room")
        found = {socket.id: socket for socket in await one.io.fetch_sockets()}
        assert set(found) == {here.socket.id, there.socket.id}
        assert found[here.socket.id] is here.socket
        remote = found[there.socket.id]
        assert isinstance(remote, RemoteSocket)
        assert remote.rooms == {there.socket.id, "room"}
        assert remote.handshake.auth == {"token": "t"}
        assert remote.handshake.url == there.socket.handshake.url
        assert remote.handshake.issued == pytest.approx(there.socket.handshake.issued, abs=0.001)
        assert [socket.id for socket in await one.io.to("room").fetch_sockets()] == [there.socket.id]
        assert [socket.id for socket in await one.io.local.fetch_sockets()] == [here.socket.id]
        assert_idle(one.adapter)


async def test_a_socket_of_another_server_can_be_used_like_one_s_own(place: Place) -> None:
    async with place.crowd("one", "two") as (one, two), trio.open_nursery() as nursery:
        (remote,) = await one.io.to(two.socket.id).fetch_sockets()
        await remote.emit("hi", 1)
        assert await two.hear() == ["hi", 1]
        nursery.start_soon(two.reply, "answer")
        with trio.fail_after(LIMIT):
            assert await remote.emit_with_ack("ask") == "answer"
        await remote.join(["a", "b"])
        await until(lambda: two.socket.rooms >= {"a", "b"})
        await remote.leave("a")
        await until(lambda: "a" not in two.socket.rooms)
        await remote.disconnect(close=True)
        await until(lambda: not two.socket.connected)
        with pytest.raises(SocketDisconnected), trio.fail_after(LIMIT):
            await remote.timeout(LIMIT).emit_with_ack("ask")


async def test_data_that_cannot_be_told_does_not_keep_others_waiting(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.crowd("one", "two") as (one, two):
        two.socket.data = {"secret": object()}
        (remote,) = await one.io.to(two.socket.id).fetch_sockets()
        assert remote.data == {}
        assert "is not told to other servers" in caplog.text


# What servers say to each other


async def test_a_server_side_emit_reaches_all_others_and_not_the_sender(place: Place) -> None:
    async with place.joined("one", "two", "three") as members:
        calls: list[Any] = []
        for member in members:
            member.io.on("event", lambda *args, name=member.name: calls.append((name, *args)))
        await members[0].io.server_side_emit("event", 1, {"b": [b"\x01"]})
        await until(lambda: len(calls) == 2)
        assert sorted(call[0] for call in calls) == ["three", "two"]
        assert all(call[1:] == (1, {"b": [b"\x01"]}) for call in calls)


async def test_a_server_side_emit_collects_an_answer_of_each_other_server(place: Place) -> None:
    async with place.joined("one", "two", "three") as members:
        for member in members:
            member.io.on("ask", partial(answer_later, {"name": member.name, "raw": b"\x02"}))
        found = await members[0].io.server_side_emit_with_ack("ask", 7)
        assert sorted(answer["name"] for answer in found) == ["three", "two"]
        assert all(answer["raw"] == b"\x02" for answer in found)
        assert_idle(members[0].adapter)


async def answer_later(answer: Any, number: int) -> Any:
    await trio.sleep(0.001 * number)
    return answer


async def test_a_server_that_stands_alone_has_nobody_to_wait_for(place: Place) -> None:
    async with place.joined("one") as (one,):
        with trio.fail_after(LIMIT):
            assert await one.io.server_side_emit_with_ack("ask") == []
            assert await one.io.fetch_sockets() == []
            await one.io.sockets_join("a", wait=True)
        assert await one.adapter.server_count() == 1


async def test_a_silent_server_is_named_and_the_answers_of_others_are_kept(place: Place) -> None:
    async with place.joined("one", "two", "three") as (one, two, three):
        two.io.on("ask", lambda: "from two")
        three.io.on("ask", trio.sleep_forever)
        with pytest.raises(AckTimeout) as caught:
            await one.io.timeout(SOON).server_side_emit_with_ack("ask")
        assert caught.value.responses == ["from two"]
        assert caught.value.servers == ("three",)
        assert caught.value.missing == 1
        assert_idle(one.adapter)


async def test_a_server_that_leaves_meanwhile_is_not_waited_for(place: Place) -> None:
    async with place.joined("one", "two") as (one, two):
        two.io.on("ask", lambda: "from two")
        asked = trio.Event()

        async def leave(asked: trio.Event, gone: trio.Event) -> None:
            async with place.member("three") as three:

                async def hold() -> None:
                    asked.set()
                    await trio.sleep_forever()

                three.io.on("ask", hold)
                ready.set()
                await asked.wait()
            gone.set()

        ready, gone = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, asked, gone)
            await ready.wait()
            with trio.fail_after(LIMIT):
                assert await one.io.timeout(LIMIT).server_side_emit_with_ack("ask") == ["from two"]
            await gone.wait()
        assert await one.adapter.server_count() == 2


async def test_all_rooms_of_all_servers_are_found_where_the_protocol_has_that(place: Place) -> None:
    async with place.crowd("one", "two") as (one, two):
        await two.socket.join("room")
        if place.kind.has_all_rooms:
            assert await one.member.adapter.all_rooms() == {one.socket.id, two.socket.id, "room"}
        else:
            with pytest.raises(LocalProtocolError, match="older Redis protocol"):
                await one.member.adapter.all_rooms()


async def test_servers_are_counted_while_they_are_there(place: Place) -> None:
    async with place.joined("one") as (one,):
        async with place.joined("two", "three"):
            assert await one.adapter.server_count() == 3
            assert await one.adapter.bus.members() == {"two", "three"}
            assert await one.adapter.bus.peers() == {"two", "three"}

        async def is_alone() -> bool:
            return await one.adapter.server_count() == 1

        await eventually(is_alone)
        assert await one.adapter.bus.members() == set()


# Cancellation


def operations(io: Server) -> list[Callable[[], Awaitable[Any]]]:
    """Everything that waits for others, or may."""
    return [
        partial(io.emit, "x"),
        partial(io.emit_with_ack, "ask"),
        partial(io.sockets_join, "a"),
        partial(io.sockets_join, "a", wait=True),
        partial(io.sockets_leave, "a", wait=True),
        io.fetch_sockets,
        partial(io.server_side_emit, "x"),
        partial(io.server_side_emit_with_ack, "hang"),
        io.sockets.adapter.server_count,
    ]


async def test_whatever_is_cancelled_whenever_nothing_is_left_of_it(place: Place) -> None:
    async with place.crowd("one", "two") as (one, two):
        two.io.on("hang", trio.sleep_forever)
        for operation in operations(one.io):
            for seconds in (0.0, 0.0002, 0.001, 0.004):
                with trio.move_on_after(seconds):
                    await operation()
                assert_idle(one.member.adapter)
        await two.client.disconnect()
        await until(lambda: not two.member.adapter.statistics().collecting)
        assert await one.member.adapter.server_count() == 2
        assert [socket.id for socket in await one.io.fetch_sockets()] == [one.socket.id]


async def test_a_join_that_is_cancelled_is_followed_in_the_background(place: Place) -> None:
    async with place.crowd("one", "two") as (one, two):
        for seconds in (0.0, 0.0001, 0.0005):
            with trio.move_on_after(seconds):
                await two.socket.join("room")
        await two.socket.join("room")
        await one.io.to("room").emit("hear")
        assert await two.hear() == ["hear"]
        assert adapter_of(two.io).rooms["room"] == {two.socket.id}
