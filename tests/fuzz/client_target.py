"""What any server may do to the client's protocol state, with a disk, crashes and time.

The client raises ProtocolError and nothing else, sends only what is valid and what the server has
allowed, keeps its books, and has nothing left once a good server has answered all.
"""

from collections.abc import Callable
from typing import Final

from holdfast.client.connection import CONNECTED, REQUESTS_MAX
from holdfast.client.outgoing import RELEASED
from holdfast.errors import ProtocolError, Refused
from holdfast.message import Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    MQTT_5_0,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from tests.client.world import ClientWorld
from tests.fuzz import made_packets
from tests.fuzz.choices import Choices

STEPS_MAX: Final = 200
WAITS_MS: Final = (1, 1000, 70_000)
SMALL_IDS: Final = 12  # of packets of the server, so that they meet
REQUEST_IDS: Final = 65_280  # and those of requests begin here


def client(data: bytes) -> None:
    """Play an input to its end, and then a good server."""
    choices = Choices(data)
    play = Play(choices)
    for _ in range(STEPS_MAX):
        if choices.is_at_end:
            break
        play.step(choices)
    play.settle()


class Limits:
    """What the server of a connection has announced."""

    def __init__(self) -> None:
        self.receive_maximum = 65_535
        self.packet_bytes_max = 268_435_460
        self.maximum_qos = 2
        self.has_retained = True
        self.aliases_max = 0


class Play:
    """One client, and what its server may know of it."""

    def __init__(self, choices: Choices) -> None:
        shape = choices.byte()
        self.version = 5 if shape & 1 else 4
        self.in_flight_max = choices.pick((65_000, 1, 3))
        self.world = ClientWorld(
            self.version,
            is_durable=shape & 2 != 0,
            manual_ack=shape & 4 != 0,
            in_flight_max=self.in_flight_max,
            uses_aliases=shape & 8 != 0,
        )
        self.limits = Limits()
        self.carried = 0  # PUBRELs that this connection began with
        self.taken: list[object] = []
        self._is_clean = False
        self._steps: tuple[Callable[[Choices], None], ...] = (
            self._publish,
            self._publish,
            self._acknowledge,
            self._acknowledge,
            self._deliver,
            self._deliver,
            self._release,
            self._take,
            self._take,
            self._done,
            self._connect,
            self._connect,
            self._request,
            self._answer,
            self._any_packet,
            self._damaged,
            self._raw,
            self._cut,
            self._crash,
            self._hold,
            self._sync,
            self._wait,
        )

    def step(self, choices: Choices) -> None:
        choices.pick(self._steps)(choices)
        self.look()

    # --- the application

    def _publish(self, choices: Choices) -> None:
        shape = choices.byte()
        properties: Properties | None = None
        if shape & 0x10:
            properties = Properties()
            properties.user_properties = made_packets.user_properties(choices)
            properties.content_type = "text"
        if self.world.sending.messages < 50:
            self.world.publish(
                choices.pick(("a", "a/b", "é", "l" * 40)),
                choices.binary(20),
                shape % 3,
                retain=shape & 4 != 0,
                properties=properties,
                expiry_s=choices.pick((0, 1, 60)) if shape & 8 else None,
            )

    def _take(self, choices: Choices) -> None:
        if self.world.arrived:
            self.taken.append(self.world.take())

    def _done(self, choices: Choices) -> None:
        if self.taken:
            message = self.taken.pop(choices.byte() % len(self.taken))
            self.world.done(message)  # type: ignore[arg-type]  # of take

    def _request(self, choices: Choices) -> None:
        connection = self.world.connection
        if connection is None or connection.state != CONNECTED:
            return
        topic_filter = choices.pick(("a", "a/#", "$share/g/a", "l" * 40))
        packet: Subscribe | Unsubscribe = Unsubscribe(0, [topic_filter])
        if choices.flag():
            packet = Subscribe(0, [SubscriptionRequest(topic_filter, 2)] * (1 + choices.below(3)))
        try:
            self.world.request(packet)
        except Refused:
            pass

    # --- the server

    def _connect(self, choices: Choices) -> None:
        if self.world.connection is not None and choices.flag():
            return
        self._cut(choices)
        self._is_clean = choices.below(4) == 0
        properties: Properties | None = None
        if self.version >= MQTT_5_0:
            properties = Properties()
            properties.receive_maximum = choices.pick((None, 1, 4))
            properties.maximum_packet_size = choices.pick((None, None, 60))
            properties.topic_alias_maximum = choices.pick((None, 3))
            if choices.below(8) == 0:
                properties.authentication_method = "PLAIN"
        self.world.open(Connect("c", self.version, self._is_clean, properties=properties))
        if choices.below(8) > 0:
            self._connack(choices)

    def _connack(self, choices: Choices) -> None:
        limits = Limits()
        properties: Properties | None = None
        if self.version >= MQTT_5_0 and choices.flag():
            properties = Properties()
            properties.receive_maximum = choices.pick((None, 1, 3, 65_535))
            properties.maximum_packet_size = choices.pick((None, None, 5, 30, 60))
            properties.maximum_qos = choices.pick((None, None, 0, 1))
            properties.retain_available = choices.pick((None, 0))
            properties.topic_alias_maximum = choices.pick((None, 1, 3))
            properties.wildcard_subscription_available = choices.pick((None, 0))
            properties.shared_subscription_available = choices.pick((None, 0))
            limits.receive_maximum = properties.receive_maximum or 65_535
            limits.packet_bytes_max = properties.maximum_packet_size or limits.packet_bytes_max
            if properties.maximum_qos is not None:
                limits.maximum_qos = properties.maximum_qos
            limits.has_retained = properties.retain_available is None
            limits.aliases_max = properties.topic_alias_maximum or 0
        code = 0
        if choices.below(8) == 0:
            code = 0x88 if self.version >= MQTT_5_0 else 3
        connection = self.world.connection
        if code == 0 and connection is not None and connection.state != CONNECTED:
            self.limits = limits
        present = code == 0 and not self._is_clean and choices.below(4) > 0
        self._send(Connack(present, code, properties))

    def _acknowledge(self, choices: Choices) -> None:
        number = 1 + choices.below(SMALL_IDS)
        code = choices.pick((0, 0, 0, 0x10, 0x80, 0x97)) if self.version >= MQTT_5_0 else 0
        end = choices.pick((0, 0, 0x92)) if self.version >= MQTT_5_0 else 0
        self._send(choices.pick((Puback(number, code), Pubrec(number, code), Pubcomp(number, end))))

    def _deliver(self, choices: Choices) -> None:
        packet = made_packets.publish(choices, self.version, choices.byte())
        packet.packet_id = packet.packet_id % SMALL_IDS + 1 if packet.qos else 0
        self._send(packet)

    def _release(self, choices: Choices) -> None:
        self._send(Pubrel(1 + choices.below(SMALL_IDS)))

    def _answer(self, choices: Choices) -> None:
        number = REQUEST_IDS + choices.below(6)
        codes = [choices.pick((0, 1, 2, 0x80)) for _ in range(1 + choices.below(3))]
        if choices.flag():
            self._send(Suback(number, codes))
        else:
            self._send(Unsuback(number, [0] * len(codes) if self.version >= MQTT_5_0 else []))

    def _any_packet(self, choices: Choices) -> None:
        kind = choices.below(6)
        packet: Packet = Pingresp()
        if kind == 0:
            packet = made_packets.any_packet(choices, self.version)
        elif kind == 1:
            self._connack(choices)
            return
        elif self.version >= MQTT_5_0 and kind == 2:
            packet = Disconnect(choices.pick((0x8B, 0x8E, 0x9C)))
        elif self.version >= MQTT_5_0 and kind == 3:
            packet = made_packets.auth(choices)
        self._send(packet)

    def _damaged(self, choices: Choices) -> None:
        wire = bytearray(encode(made_packets.any_packet(choices, self.version), self.version))
        for _ in range(1 + choices.below(3)):
            place = choices.byte() % (len(wire) + 1)
            kind = choices.below(3)
            if kind == 0:
                wire[place:place] = choices.binary(3)
            elif kind == 1:
                del wire[place : place + 1 + choices.below(3)]
            elif place < len(wire):
                wire[place] = choices.byte()
        self._send_bytes(bytes(wire))

    def _raw(self, choices: Choices) -> None:
        self._send_bytes(choices.binary(40))

    def _send(self, packet: Packet) -> None:
        if isinstance(packet, Auth) and self.version < MQTT_5_0:
            return
        self._send_bytes(encode(packet, self.version))

    def _send_bytes(self, data: bytes) -> None:
        if self.world.connection is None:
            return
        was_connected = self.world.connection.state == CONNECTED
        released = self._released()
        try:
            self.world.server_bytes(data)
        except ProtocolError:
            self.world.turn()
            self.look()
            self._gone()
            return
        if not was_connected and self.world.connection.state == CONNECTED:
            self.carried = released

    # --- connections, disk and time

    def _cut(self, choices: Choices) -> None:
        if self.world.connection is not None:
            self._gone()

    def _gone(self) -> None:
        self.world.cut()
        self.limits = Limits()

    def _crash(self, choices: Choices) -> None:
        if self.world.disk.commits:
            self.taken.clear()
            self.world.sync() if choices.flag() else None
            self.limits = Limits()
            self.world.crash(present=choices.flag())
            self.carried = self._released()

    def _hold(self, choices: Choices) -> None:
        self.world.hold()

    def _sync(self, choices: Choices) -> None:
        self.world.sync()

    def _wait(self, choices: Choices) -> None:
        self.world.now_ms += choices.pick(WAITS_MS)

    # --- what must hold

    def look(self) -> None:
        """All that was sent is valid and allowed, and the books agree."""
        limits = self.limits
        for packet in self.world.packets():
            assert len(encode(packet, self.version)) <= limits.packet_bytes_max
            if isinstance(packet, Publish):
                assert packet.qos <= limits.maximum_qos
                assert limits.has_retained or not packet.retain
                found = packet.properties
                if found is not None and found.topic_alias is not None:
                    assert 0 < found.topic_alias <= limits.aliases_max
                assert packet.topic or (found is not None and found.topic_alias is not None)
                assert found is None or not found.subscription_identifiers
        sending = self.world.sending
        unfinished = sending.unfinished()
        assert sending.messages == len(unfinished)
        assert sending.bytes == sum(entry.size for entry in unfinished)
        window = min(limits.receive_maximum, self.in_flight_max)
        connection = self.world.connection
        if connection is not None and connection.state == CONNECTED:
            assert sending.in_flight <= window + self.carried
            assert len(connection._requests) <= REQUESTS_MAX

    def _released(self) -> int:
        return sum(entry.stage == RELEASED for entry in self.world.sending.unfinished())

    def settle(self) -> None:
        """A good server answers all: nothing is left."""
        world = self.world
        world.sync()
        for present in (True, False):
            if world.connection is not None:
                world.cut()
            self.limits = Limits()
            world.hello(present=present)
            self._answer_all()
        for message in self.taken:
            world.done(message)  # type: ignore[arg-type]  # of take
        while world.arrived:
            world.done(world.take())
        world.sync()
        self._answer_all()
        assert world.sending.messages == world.sending.bytes == world.sending.in_flight == 0
        assert not world.sending._sender.in_flight and len(world.sending._queue) == 0
        receiving = world.receiving
        assert not receiving._unacknowledged and len(receiving._receiver) == 0
        assert len(receiving._pubacks) == len(receiving._pubrecs) == 0
        assert not receiving._exchanges
        assert not world.disk.outgoing and not world.disk.incoming
        assert not world.changes.records and not world.changes.sends and not world.changes.arrived

    def _answer_all(self) -> None:
        world = self.world
        for _ in range(1000):
            packets = world.packets()
            if not packets:
                return
            for packet in packets:
                if isinstance(packet, Publish) and packet.qos == 1:
                    world.server(Puback(packet.packet_id))
                elif isinstance(packet, Publish) and packet.qos == 2:
                    world.server(Pubrec(packet.packet_id))
                elif isinstance(packet, Pubrel):
                    world.server(Pubcomp(packet.packet_id))
                elif isinstance(packet, Pubrec):
                    world.server(Pubrel(packet.packet_id))
        raise AssertionError("the client does not come to an end")
