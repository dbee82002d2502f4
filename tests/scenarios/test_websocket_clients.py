"""Real clients over WebSocket: paho-mqtt, MQTT.js in Node, and MQTT.js in the page of a browser."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from holdfast.config import load_settings
from tests.support.broker import BrokerProcess
from tests.support.browser import Page
from tests.support.clients import MqttJs, Paho, Subscribes, mosquitto_pub
from tests.support.guides import Reader, blocks
from tests.support.listening import Authority, listener_table, ports, tls_table
from tests.support.packets import V5
from tests.support.wire import Wire, contents

WEB, SECURE = 1, 2  # of the broker's listeners
WEBSOCKET = "[listeners.websocket]\n"

KINDS = ("paho", "MQTT.js", "page")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def _web_broker(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[BrokerProcess]:
    folder = tmp_path_factory.mktemp("broker") / "data"
    certificate = authority.issue("server", "127.0.0.1")
    toml = listener_table("web") + WEBSOCKET
    toml += listener_table("secure") + WEBSOCKET + tls_table(certificate)
    with BrokerProcess(folder, toml=toml) as broker:
        yield broker


@pytest.fixture
def broker(_web_broker: BrokerProcess) -> Iterator[BrokerProcess]:
    """A running broker with a listener for WebSocket, shared by this module."""
    yield _web_broker
    assert _web_broker.is_running, "the broker ended during this test"


class Kinds:
    """Makes subscribers of one kind, over ws or wss; each page has a browser of its own."""

    def __init__(self, kind: str, authority: Authority, stack: ExitStack) -> None:
        self._kind = kind
        self._authority = authority
        self._stack = stack

    def over(self, scheme: str) -> Subscribes:
        ca = self._authority.file if scheme == "wss" else None
        if self._kind == "paho":
            return partial(Paho, transport="websockets", ca=ca)
        if self._kind == "MQTT.js":
            return partial(MqttJs, scheme=scheme, ca=ca)

        def in_page(
            port: int,
            level: int,
            client_id: str,
            topic_filter: str,
            qos: int,
            *,
            is_back: bool = False,
        ) -> MqttJs:
            make = partial(MqttJs, scheme=scheme, page=self._stack.enter_context(Page()))
            return make(port, level, client_id, topic_filter, qos, is_back=is_back)

        return in_page


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Kinds]:
    with ExitStack() as stack:
        yield Kinds(request.param, authority, stack)


def test_a_session_over_websocket_misses_nothing(
    broker: BrokerProcess, kind: Kinds, name: str, level: int
) -> None:
    """What is published over plain MQTT comes, and what it has missed once it is back."""
    web, topic, subscribes = ports(broker)[WEB], f"{name}/t", kind.over("ws")
    payloads = [f"message {number}" for number in range(30)]
    subscriber = subscribes(web, level, name, topic, 2)
    mosquitto_pub(broker.port, level, topic, *payloads[:10], qos=2)
    assert subscriber.messages(10) == payloads[:10]
    subscriber.leave()
    mosquitto_pub(broker.port, level, topic, *payloads[10:20], qos=2)
    subscriber = subscribes(web, level, name, topic, 2, is_back=True)
    assert subscriber.session_present
    assert subscriber.messages(10) == payloads[10:20]
    subscriber.die()
    mosquitto_pub(broker.port, level, topic, *payloads[20:], qos=2)
    subscriber = subscribes(web, level, name, topic, 2, is_back=True)
    assert subscriber.messages(10) == payloads[20:]
    subscriber.leave()


def test_secure_websocket(broker: BrokerProcess, kind: Kinds, name: str) -> None:
    payloads = ["one", "0123456789" * 20_000, "three"]
    subscriber = kind.over("wss")(ports(broker)[SECURE], V5, name, f"{name}/t", 1)
    mosquitto_pub(broker.port, V5, f"{name}/t", *payloads)
    assert subscriber.messages(3) == payloads
    subscriber.leave()


def test_a_page_publishes_to_everyone(broker: BrokerProcess, name: str) -> None:
    """Small messages and one of 300 kB, at QoS 2."""
    large = "0123456789" * 30_000
    with Page() as page, Wire(broker.port) as watcher:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/t", 2)
        client = MqttJs(ports(broker)[WEB], V5, name, scheme="ws", page=page)
        for payload in ("one", large, "three"):
            client.publish(f"{name}/t", payload, qos=2)
            client.acknowledged()
        assert contents(watcher.messages(3)) == [b"one", large.encode(), b"three"]
        client.leave()


def test_only_pages_of_the_listed_origins_get_in(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    """A browser tells the origin by itself: the same page under another name is another one."""
    folder = tmp_path_factory.mktemp("broker") / "data"
    with Page("127.0.0.1") as allowed, Page("localhost") as foreign:
        toml = f'{listener_table("web")}{WEBSOCKET}origins = ["{allowed.origin}"]\n'
        with BrokerProcess(folder, toml=toml) as broker:
            client = MqttJs(ports(broker)[WEB], V5, name, scheme="ws", page=allowed)
            client.leave()
            url = f"ws://127.0.0.1:{ports(broker)[WEB]}/mqtt"
            foreign.write_line(
                f'{{"do": "connect", "url": "{url}", "options": {{"reconnectPeriod": 0}}}}'
            )
            _, event = foreign.wait_line('"event":"(closed|connected)"')
            assert event[1] == "closed"
            broker.process.wait_line(f"the origin {foreign.origin} is not allowed")


def test_the_guide_works_as_it_is_written(tmp_path: Path) -> None:
    """Its first settings are the broker's; the text behind a block is what that prints."""
    reader = Reader(tmp_path)
    (_, settings), *rest = blocks("websocket.md")
    printed = ""
    with ExitStack() as stack:
        toml = settings.replace("9001", "0")
        broker = stack.enter_context(BrokerProcess(tmp_path / "data", toml=toml))
        web = ports(broker)[WEB]

        def here(text: str) -> str:
            return text.replace("9001", str(web))

        for language, text in rest:
            if language == "text":
                assert printed == text
            elif language == "toml":
                (tmp_path / "more.toml").write_text(here(text))
                load_settings(config_file=tmp_path / "more.toml")
            elif language == "html":
                watcher = stack.enter_context(Wire(broker.port))
                watcher.hello("watcher", clean=True)
                watcher.subscribe("home/seen")
                html, count = re.subn(r"https://[^\"]*/mqtt.min.js", "/mqtt.js", here(text))
                assert count == 1
                stack.enter_context(Page(html=html))
                assert watcher.receive().payload == b"open"
            elif language in ("sh", "python", "js"):
                printed = reader.run(language, here(text))
