"""Lanes: every source in its turn, so much and no more, and each lane by itself."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial

from holdfast.errors import LimitExceeded
from holdfast.net.lanes import Lanes
from holdfast.net.logins import source_of
from tests.support.wire import PATIENCE_S


class Gate:
    """A job that takes until it is opened."""

    def __init__(self) -> None:
        self.is_begun = threading.Event()
        self._opened = threading.Event()

    def __call__(self) -> str:
        self.is_begun.set()
        assert self._opened.wait(PATIENCE_S)
        return "gate"

    def open(self) -> None:
        self._opened.set()


def run(story: Callable[["Scene"], None], waiting_max: int = 100) -> list[str]:
    """Submit what the story says while the one thread of lane "" is busy; what was done, in order.

    The story is told on the event loop, so nothing is done before its end.
    """

    async def play() -> list[str]:
        gate = Gate()
        lanes = Lanes[str](asyncio.get_running_loop(), {"": 1, "other": 1}, waiting_max)
        scene = Scene(lanes)
        scene.submit("gate", "", gate)
        assert gate.is_begun.wait(PATIENCE_S)
        story(scene)
        gate.open()
        await asyncio.wait_for(scene.finished(), PATIENCE_S)
        lanes.leave()
        return scene.done

    return asyncio.run(play())


class Scene:
    def __init__(self, lanes: Lanes[str]) -> None:
        self.done: list[str] = []
        self._lanes = lanes
        self._open = 0
        self._all_done = asyncio.Event()

    def submit(
        self,
        source: str,
        text: str,
        job: Callable[[], str] | None = None,
        *,
        lane: str = "",
        has_room: bool = False,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        def done(result: str | None, error: BaseException | None) -> None:
            self._note(text, error)
            then()

        self._open += 1
        self._lanes.submit(lane, source, job or partial(str, text), done, has_room=has_room)

    async def finished(self) -> None:
        await self._all_done.wait()

    def _note(self, text: str, error: BaseException | None) -> None:
        if text:
            self.done.append(text if error is None else f"{text} {type(error).__name__}")
        self._open -= 1
        if self._open == 0:
            self._all_done.set()


def test_sources_take_turns() -> None:
    def story(scene: Scene) -> None:
        for number in range(3):
            scene.submit("flood", f"f{number}")
        scene.submit("ada", "a0")
        scene.submit("ada", "a1")
        scene.submit("bob", "b0")

    assert run(story) == ["f0", "a0", "b0", "f1", "a1", "f2"]


def test_a_full_lane_drops_what_the_largest_source_brought_last() -> None:
    def story(scene: Scene) -> None:
        for number in range(4):
            scene.submit("flood", f"f{number}")
        scene.submit("flood", "f4")
        scene.submit("ada", "a0")
        scene.submit("bob", "b0")
        scene.submit("bob", "b1")
        scene.submit("renewals", "r0", has_room=True)

    done = run(story, waiting_max=4)
    refused = [text.split()[0] for text in done if text.endswith(LimitExceeded.__name__)]
    assert sorted(refused) == ["b1", "f2", "f3", "f4"]
    assert [text for text in done if " " not in text] == ["f0", "a0", "b0", "r0", "f1"]


def test_a_slow_lane_holds_up_nothing_in_another() -> None:
    gate = Gate()

    def story(scene: Scene) -> None:
        scene.submit("ada", "slow", gate, lane="other")
        scene.submit("ada", "quick", then=gate.open)

    assert run(story) == ["quick", "slow"]


def test_what_a_job_raises_comes_back() -> None:
    def story(scene: Scene) -> None:
        scene.submit("ada", "bad", lambda: str(1 // 0))
        scene.submit("ada", "good")

    assert run(story) == ["bad ZeroDivisionError", "good"]


def test_a_source_is_an_address_or_a_network() -> None:
    assert source_of("192.0.2.1:1883") == source_of("192.0.2.1:99") == "192.0.2.1"
    assert source_of("[2001:db8::1]:1883") == source_of("[2001:db8::ffff:1]:7")
    assert source_of("[2001:db8::1]:1883") != source_of("[2001:db8:0:1::1]:1883")
    assert source_of("[fe80::1%eth0]:1") == source_of("[fe80::2%eth0]:2")
    for odd in ("unknown", "", "unix:/run/holdfast.sock", "[::zz]:1"):
        assert isinstance(source_of(odd), str)
