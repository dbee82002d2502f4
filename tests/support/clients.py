"""Real MQTT clients under one small surface, so that one story is told once for all of them.

Each is somebody else's implementation of MQTT: mosquitto_sub, paho-mqtt, and MQTT.js.
"""

import json
import os
import queue
import socket
import subprocess
from pathlib import Path
from typing import Literal, Protocol, final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.browser import NODE_DIR, Page
from tests.support.packets import V5
from tests.support.process import PATIENCE_S, Process, required
from tests.support.wire import FOREVER_S


class Subscriber(Protocol):
    """A connected client with a persistent session, subscribed when it has been made."""

    @property
    def session_present(self) -> bool | None:
        """What the CONNACK said; None where the client does not tell."""

    def messages(self, count: int) -> list[str]:
        """The payloads of the next ``count`` messages."""

    def die(self) -> None:
        """End without DISCONNECT."""

    def leave(self) -> None:
        """End with DISCONNECT."""


class Subscribes(Protocol):
    """Makes a Subscriber; with ``is_back`` it relies on the subscription its session has."""

    def __call__(
        self,
        port: int,
        level: int,
        client_id: str,
        topic_filter: str,
        qos: int,
        *,
        is_back: bool = False,
    ) -> Subscriber: ...


@final
class MosquittoSub:
    """``mosquitto_sub -c``. It subscribes whenever it connects, back or not."""

    def __init__(
        self,
        port: int,
        level: int,
        client_id: str,
        topic_filter: str,
        qos: int,
        *,
        is_back: bool = False,
    ) -> None:
        # stdbuf, because it does not flush what it prints about itself.
        command = [required("stdbuf", "coreutils"), "-oL"]
        command += [required("mosquitto_sub", "mosquitto-clients"), "-d", *_address(port, level)]
        command += ["-c", "-i", client_id, "-t", topic_filter, "-q", str(qos)]
        command += ["-F", "message=%p"]
        if level == V5:
            command += ["-x", str(FOREVER_S)]
        self._process = Process(command)
        self._read, _ = 0, self._process.wait_line("received SUBACK")

    @property
    def session_present(self) -> bool | None:
        return None

    def messages(self, count: int) -> list[str]:
        found = []
        for _ in range(count):
            number, match = self._process.wait_line("^message=(.*)$", self._read)
            self._read = number + 1
            found.append(match[1])
        return found

    def die(self) -> None:
        self._process.kill9()

    def leave(self) -> None:
        """End it by force: the handler of its signals may hang. ``mosquitto_sub`` leaves better."""
        self._process.kill9()


def mosquitto_sub(port: int, level: int, client_id: str, *arguments: str) -> list[str]:
    """Run ``mosquitto_sub -c`` until it leaves by itself, after -E or -C; the payloads."""
    command = [required("mosquitto_sub", "mosquitto-clients"), *_address(port, level)]
    command += ["-c", "-i", client_id, *arguments]
    if level == V5:
        command += ["-x", str(FOREVER_S)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def mosquitto_pub(
    port: int,
    level: int,
    topic: str,
    *payloads: str,
    qos: int = 1,
    retain: bool = False,
    client_id: str | None = None,
    is_persistent: bool = False,
) -> None:
    """Publish each payload with ``mosquitto_pub``, which ends when all are acknowledged."""
    command = [required("mosquitto_pub", "mosquitto-clients"), *_address(port, level)]
    command += ["-t", topic, "-q", str(qos), "-l"]
    if retain:
        command.append("-r")
    if client_id is not None:
        command += ["-i", client_id]
    if is_persistent:
        command += ["-c"] + (["-x", str(FOREVER_S)] if level == V5 else [])
    text = "".join(f"{payload}\n" for payload in payloads)
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr


def _address(port: int, level: int) -> list[str]:
    version = "mqttv5" if level == V5 else "mqttv311"
    return ["-h", "127.0.0.1", "-p", str(port), "-V", version]


@final
class Paho:
    """paho-mqtt, with its network loop in a thread of its own and without reconnecting."""

    def __init__(
        self,
        port: int,
        level: int,
        client_id: str,
        topic_filter: str,
        qos: int,
        *,
        is_back: bool = False,
        transport: Literal["tcp", "websockets"] = "tcp",
        ca: Path | None = None,
    ) -> None:
        self._connacks: queue.Queue[tuple[bool, str]] = queue.Queue()
        self._subacks: queue.Queue[list[ReasonCode]] = queue.Queue()
        self._messages: queue.Queue[str] = queue.Queue()
        version = MQTTProtocolVersion.MQTTv5 if level == V5 else MQTTProtocolVersion.MQTTv311
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if level == V5 else False,
            protocol=version,
            transport=transport,
            reconnect_on_failure=False,
        )
        if ca is not None:
            self._client.tls_set(str(ca))
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        if level == V5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = FOREVER_S
            self._client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        else:
            self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        present, reason = self._connacks.get(timeout=PATIENCE_S)
        assert reason == "Success", reason
        self.session_present: bool | None = present
        if not is_back:
            self._client.subscribe(topic_filter, qos)
            assert self._subacks.get(timeout=PATIENCE_S)[0].value == qos

    def _on_connect(
        self,
        client: paho.Client,
        userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._connacks.put((flags.session_present, str(reason)))

    def _on_subscribe(
        self,
        client: paho.Client,
        userdata: object,
        packet_id: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        self._subacks.put(reasons)

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self._messages.put(message.payload.decode())

    def messages(self, count: int) -> list[str]:
        return [self._messages.get(timeout=PATIENCE_S) for _ in range(count)]

    def die(self) -> None:
        """Break its socket under it: its loop ends, and nothing in it can say goodbye."""
        connection = self._client.socket()
        assert connection is not None
        # Of a WebSocket paho shows a wrapper, which only has the number.
        with socket.socket(fileno=os.dup(connection.fileno())) as own:
            own.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()
        connection.close()
        self._forget()

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._forget()

    def _forget(self) -> None:
        """Leave no cycle: paho closes the sockets of its own when nothing refers to it."""
        client = self._client
        client.on_connect = client.on_subscribe = client.on_message = None


@final
class MqttJs:
    """MQTT.js, driven by one JSON command per line: in a Node process, or in the page of a browser.

    ``scheme`` is mqtt, ws or wss; ``ca`` is whose certificates a Node process trusts for that.
    """

    def __init__(
        self,
        port: int,
        level: int,
        client_id: str,
        topic_filter: str | None = None,
        qos: int = 1,
        *,
        is_back: bool = False,
        will: dict[str, str | int | bool] | None = None,
        reconnect_ms: int = 0,
        scheme: str = "mqtt",
        ca: Path | None = None,
        page: Page | None = None,
    ) -> None:
        if not (NODE_DIR / "node_modules" / "mqtt").is_dir():
            raise AssertionError("MQTT.js is missing: run `make test`, it installs it with npm")
        self._process: Process | Page
        if page is None:
            node = required("node", "nodejs and npm")
            self._process = Process([node, str(NODE_DIR / "driver.js")])
        else:
            self._process = page
        self._read: dict[str, int] = {}
        options: dict[str, object] = {"clientId": client_id, "clean": False}
        options |= {"protocolVersion": level, "reconnectPeriod": reconnect_ms}
        if level == V5:
            options["properties"] = {"sessionExpiryInterval": FOREVER_S}
        if will is not None:
            options["will"] = will
        if ca is not None:
            options["ca"] = ca.read_text()
        path = "" if scheme == "mqtt" else "/mqtt"
        self._do("connect", url=f"{scheme}://127.0.0.1:{port}{path}", options=options)
        self.session_present: bool | None = bool(self.event("connected")["sessionPresent"])
        if topic_filter is not None and not is_back:
            self._do("subscribe", filter=topic_filter, qos=qos)
            self.event("subscribed")

    def _do(self, action: str, **arguments: object) -> None:
        self._process.write_line(json.dumps({"do": action, **arguments}))

    def event(self, kind: str) -> dict[str, str | int | bool]:
        """The next event of this kind that has not been asked for yet."""
        first = self._read.get(kind, 0)
        number, match = self._process.wait_line(rf'^{{"event":"({kind})".*}}$', first)
        self._read[kind] = number + 1
        event: dict[str, str | int | bool] = json.loads(match[0])
        return event

    def messages(self, count: int) -> list[str]:
        return [str(self.event("message")["payload"]) for _ in range(count)]

    def publish(self, topic: str, payload: str, qos: int = 1, *, retain: bool = False) -> None:
        """Hand a message over; ``acknowledged`` waits for what comes of it."""
        self._do("publish", topic=topic, payload=payload, qos=qos, retain=retain)

    def acknowledged(self) -> None:
        """Wait until one more message is acknowledged to the end."""
        outcome = self.event("published|refused")
        assert outcome["event"] == "published", outcome

    def die(self) -> None:
        self._process.kill9()

    def leave(self) -> None:
        self._do("leave")
        self.event("left")
        assert self._process.wait() == 0
