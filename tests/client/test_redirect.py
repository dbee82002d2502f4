"""Servers that send their clients to another one, and in a circle."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from holdfast import Client, HoldfastError, Reconnect, Refused
from holdfast.client.route import REDIRECTS_MAX, REFERENCES_MAX, Route
from holdfast.client.url import parse_url
from tests.client.peer import LOOPS, run
from tests.client.scripted import Reference, Scripted, Talk, accept, accept_briefly, leave, refuse

USE_ANOTHER, MOVED = 0x9C, 0x9D
QUICKLY = Reconnect(delay_min_s=0.001, delay_max_s=0.01)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class Told:
    """What a client tells of its connections."""

    def __init__(self) -> None:
        self.connected = 0
        self.ended: list[HoldfastError] = []
        self._changed = asyncio.Event()

    def on_connect(self, client: Client) -> None:
        self.connected += 1
        self._changed.set()

    def on_disconnect(self, client: Client, error: HoldfastError) -> None:
        self.ended.append(error)
        self._changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that comes with one of the two."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    def client(self, url: str, reconnect: Reconnect = QUICKLY) -> Client:
        """A client that tells it here."""
        return Client(
            url,
            client_id="c",
            reconnect=reconnect,
            on_connect=self.on_connect,
            on_disconnect=self.on_disconnect,
        )


@pytest.mark.parametrize("code", [USE_ANOTHER, MOVED])
@pytest.mark.parametrize(("send_away", "connections"), [(refuse, 1), (leave, 2)])
def test_a_client_goes_where_the_server_sends_it(
    loop: str, code: int, send_away: Callable[[int, Reference], Talk], connections: int
) -> None:
    async def work() -> None:
        told = Told()
        async with (
            Scripted(accept) as other,
            Scripted(send_away(code, other.address)) as first,
            told.client(f"mqtt://ada:lovelace@{first.address}"),
        ):
            await told.until(lambda: told.connected == connections)
            # As the same client, by the same user.
            assert other.connects[0].client_id == "c"
            assert other.connects[0].user_name == "ada"
            assert other.connects[0].password == b"lovelace"
            assert len(first.connects) == 1

    run(loop, work())


def test_another_server_is_for_one_connection(loop: str) -> None:
    async def work() -> None:
        told = Told()
        async with (
            Scripted(accept_briefly) as other,
            Scripted(refuse(USE_ANOTHER, other.address), accept) as first,
            told.client(first.url),
        ):
            await told.until(lambda: told.connected == 2)
            assert (len(first.connects), len(other.connects)) == (2, 1)

    run(loop, work())


def test_a_server_that_has_moved_is_found_there_from_then_on(loop: str) -> None:
    async def work() -> None:
        told = Told()
        async with (
            Scripted(accept_briefly, accept_briefly, accept) as other,
            Scripted(refuse(MOVED, other.address)) as first,
            told.client(first.url),
        ):
            await told.until(lambda: told.connected == 3)
            assert (len(first.connects), len(other.connects)) == (1, 3)

    run(loop, work())


def test_the_references_are_tried_in_their_order(loop: str) -> None:
    async def work() -> None:
        async with Scripted(accept) as other, Scripted(accept) as unused:
            nowhere = f"127.0.0.1:{closed_port()}"
            references = f"mqtts://a a/b {nowhere} {other.address} {unused.address}"
            async with Scripted(refuse(USE_ANOTHER, references)) as first, Told().client(first.url):
                counts = [len(server.connects) for server in (first, other, unused)]
                assert counts == [1, 1, 0]

    run(loop, work())


def test_a_reference_that_leads_nowhere_leads_home(loop: str) -> None:
    async def work() -> None:
        told = Told()
        nowhere = f"127.0.0.1:{closed_port()}"
        async with (
            Scripted(accept_briefly, refuse(MOVED, nowhere), accept) as first,
            told.client(first.url),
        ):
            await told.until(lambda: told.connected == 2)
            assert len(first.connects) == 3

    run(loop, work())


@pytest.mark.parametrize("reference", [None, "", "mqtts://elsewhere", "a/b"])
def test_who_says_no_and_not_where_else_has_refused(loop: str, reference: str | None) -> None:
    async def work() -> None:
        async with Scripted(refuse(USE_ANOTHER, reference)) as first:
            with pytest.raises(Refused, match="another server") as refused:
                await Client(first.url, reconnect=QUICKLY).open()
            assert refused.value.reason_code == USE_ANOTHER
            assert len(first.connects) == 1

    run(loop, work())


@pytest.mark.parametrize("send_away", [refuse, leave])
def test_servers_that_send_a_client_in_a_circle_do_not_keep_it_busy(
    loop: str, send_away: Callable[[int, Reference], Talk]
) -> None:
    async def work() -> None:
        told = Told()
        async with (
            Scripted(send_away(USE_ANOTHER, lambda: other.address)) as first,
            Scripted(send_away(USE_ANOTHER, first.address)) as other,
        ):
            client = told.client(first.url, Reconnect(delay_min_s=3600, delay_max_s=3600))
            if send_away is refuse:
                with pytest.raises(Refused):
                    await client.open()
            else:
                await client.open()
                await told.until(lambda: len(told.ended) == REDIRECTS_MAX + 1)
                await client.close()
            assert len(first.connects) + len(other.connects) == REDIRECTS_MAX + 1

    run(loop, work())


def test_a_route() -> None:
    route = Route(parse_url("mqtts://u:p@home"))
    assert str(route.next()) == str(route.next()) == "mqtts://home:8883"
    assert route.redirected(MOVED, "a:1 b:2")
    assert route.next().address == "a:1"
    assert route.has_more()
    assert route.next().address == "b:2"
    assert not route.has_more()
    route.answered()
    assert route.next() == parse_url("mqtts://u:p@b:2")  # which is home now
    assert route.redirected(USE_ANOTHER, "c")
    assert route.next().address == "c:8883"
    route.answered()
    assert route.next().address == "b:2"
    assert not route.redirected(USE_ANOTHER, "")
    assert route.redirected(USE_ANOTHER, "x " * 1000)
    assert [route.next().address for _ in range(REFERENCES_MAX + 1)][-2:] == ["x:8883", "b:2"]
