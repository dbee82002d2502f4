"""Real clients over WebSocket: paho-mqtt, MQTT.js in Node, and MQTT.js in the page of a browser."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.support.broker import BrokerProcess
from tests.support.browser import Page
from tests.support.clients import MqttJs, Paho, Subscribes, mosquitto_pub
from tests.support.packets import V5
from tests.support.wire import Wire, contents

TABLES = """
[[listeners]]
address = "127.0.0.1:0"
[listeners.websocket]
"""

KINDS = ("paho", "MQTT.js", "page")


@pytest.fixture(scope="module")
def _web_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    folder = tmp_path_factory.mktemp("broker") / "data"
    with BrokerProcess(folder, toml=TABLES) as broker:
        yield broker


@pytest.fixture
def broker(_web_broker: BrokerProcess) -> Iterator[BrokerProcess]:
    """A running broker with a listener for WebSocket, shared by this module."""
    yield _web_broker
    assert _web_broker.is_running, "the broker ended during this test"


@pytest.fixture(params=KINDS)
def subscribes(request: pytest.FixtureRequest) -> Iterator[Subscribes]:
    """Makes subscribers of one kind; each page has a browser of its own."""
    with ExitStack() as stack:

        def in_page(
            port: int,
            level: int,
            client_id: str,
            topic_filter: str,
            qos: int,
            *,
            is_back: bool = False,
        ) -> MqttJs:
            make = partial(MqttJs, scheme="ws", page=stack.enter_context(Page()))
            return make(port, level, client_id, topic_filter, qos, is_back=is_back)

        kinds: dict[str, Subscribes] = {
            "paho": partial(Paho, transport="websockets"),
            "MQTT.js": partial(MqttJs, scheme="ws"),
            "page": in_page,
        }
        yield kinds[request.param]


def test_a_session_over_websocket_misses_nothing(
    broker: BrokerProcess, subscribes: Subscribes, name: str, level: int
) -> None:
    """What is published over plain MQTT comes, and what it has missed once it is back."""
    web, topic = broker.ports[1], f"{name}/t"
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


def test_a_page_publishes_to_everyone(broker: BrokerProcess, name: str) -> None:
    """Small messages and one of 300 kB, at QoS 2."""
    large = "0123456789" * 30_000
    with Page() as page, Wire(broker.port) as watcher:
        watcher.hello(f"{name}-w", clean=True)
        watcher.subscribe(f"{name}/t", 2)
        client = MqttJs(broker.ports[1], V5, name, scheme="ws", page=page)
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
        tables = f'{TABLES}origins = ["{allowed.origin}"]\n'
        with BrokerProcess(folder, toml=tables) as broker:
            client = MqttJs(broker.ports[1], V5, name, scheme="ws", page=allowed)
            client.leave()
            url = f"ws://127.0.0.1:{broker.ports[1]}/mqtt"
            foreign.write_line(
                f'{{"do": "connect", "url": "{url}", "options": {{"reconnectPeriod": 0}}}}'
            )
            _, event = foreign.wait_line('"event":"(closed|connected)"')
            assert event[1] == "closed"
            broker.process.wait_line(f"the origin {foreign.origin} is not allowed")
