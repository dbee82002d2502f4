"""Lets an input drive the whole pure broker: clients, their packets, the disk and the clock."""

from typing import Final

from holdfast.broker import connection, log_tail, router
from holdfast.broker.limits import (
    FEED_ENTRIES_MAX,
    OUTPUT_BYTES_MAX,
    READ_BYTES_MAX,
    TAIL_ENTRIES_MAX,
    Limits,
)
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import (
    Connect,
    Packet,
    Pingreq,
    Publish,
    Pubrec,
    Pubrel,
)
from tests.fuzz import books, made_packets
from tests.fuzz.choices import Choices
from tests.fuzz.watch import DataAuthenticator, FuzzWorld, Watched

CLIENTS_MAX: Final = 6
ACTIONS_MAX: Final = 150  # of one input
VERSIONS: Final = (5, 5, 4, 3)
WAITS_MS: Final = (1, 49, 51, 1000, 3000, 9_999, 20_000, 61_000, 4_000_000)
SYS_INTERVAL_MS: Final = 20_000
DELAYED_S_MAX: Final = 30
AGES_MS: Final = 2 * 0xFFFF_FFFF * 1000  # longer than any expiry or delay

BOUNDS: Final = (
    (log_tail, "TAIL_ENTRIES_MAX", 3, TAIL_ENTRIES_MAX),
    (router, "FEED_ENTRIES_MAX", 2, FEED_ENTRIES_MAX),
    (router, "READ_BYTES_MAX", 8, READ_BYTES_MAX),
    (connection, "OUTPUT_BYTES_MAX", 60, OUTPUT_BYTES_MAX),
)

ACTIONS: Final = (
    *["_connect"] * 7,
    *["_publish"] * 14,
    *["_subscribe"] * 8,
    *["_unsubscribe"] * 2,
    *["_answer"] * 10,
    *["_release"] * 3,
    *["_acknowledge"] * 2,
    *["_any_packet"] * 3,
    *["_damaged"] * 3,
    *["_raw"] * 2,
    *["_split"] * 3,
    *["_burst"] * 3,
    *["_cut"] * 3,
    *["_leave"] * 2,
    *["_stall"] * 2,
    *["_drain"] * 2,
    *["_hold"] * 3,
    *["_sync_one"] * 3,
    *["_unhold"] * 2,
    *["_hold_reads"] * 2,
    *["_answer_reads"] * 2,
    *["_hold_auth_steps"] * 1,
    *["_answer_auth_steps"] * 2,
    *["_wait"] * 5,
    *["_crash"] * 1,
    *["_stop"] * 1,
    *["_set_clock_back"] * 1,
    *["_dial"] * 1,
)
UPSETS: Final = ("_crash", "_stop", "_set_clock_back")


def broker(data: bytes) -> None:
    """One life of a broker, from the start until everyone has left."""
    choices = Choices(data)
    bounds(is_tiny=choices.flag())
    try:
        play = Play(world(choices))
        play.run(choices)
        play.finish()
        play.end(AGES_MS)
    finally:
        bounds(is_tiny=False)


def world(choices: Choices) -> FuzzWorld:
    """A world with limits of any kind, and an authenticator in one of four."""
    bounds_of = limits(choices)
    return FuzzWorld(bounds_of, DataAuthenticator() if choices.below(4) == 3 else None)


def limits(choices: Choices) -> Limits:
    """Small ones, so that inputs of a few hundred bytes reach them."""
    shape = choices.byte()
    features = choices.byte()
    return Limits(
        packet_bytes_max=2000 if shape & 1 else 600,
        receive_maximum=3 if shape & 2 else 8,
        in_flight_max=2 if shape & 4 else 6,
        session_expiry_max_s=0xFFFF_FFFF if shape & 8 else 600,
        keep_alive_max_s=0 if shape & 16 else 20,
        shared_strategy=shape // 32 % 5,
        sys_interval_ms=0 if shape & 32 else SYS_INTERVAL_MS,
        delayed_seconds_max=DELAYED_S_MAX,
        delayed_messages_max=5,
        delayed_bytes_max=1000,
        topic_alias_maximum=0 if features & 3 == 3 else 3,
        maximum_qos=2 if features & 12 != 12 else features >> 4 & 1,
        is_retain_available=features & 0xE0 != 0xE0,
        check_payload_format=features & 16 != 0,
        response_information="answers/" if features & 32 else "",
    )


def bounds(*, is_tiny: bool) -> None:
    """Bounds so small that much is read from the store; a compiled broker has its own built in."""
    for module, name, tiny, usual in BOUNDS:
        setattr(module, name, tiny if is_tiny else usual)


class Play:
    """A world, its clients, and the actions on them."""

    def __init__(self, world: FuzzWorld) -> None:
        self.world = world
        self._clients: list[Watched] = []
        self._number = 0  # of the last payload
        self._pieces = 0  # how the next packets are cut; 0 for not at all
        self._gathering = 0  # how many of the next packets wait for a common turn

    def run(self, choices: Choices, *, has_upsets: bool = True) -> None:
        """Act on the input up to its end."""
        for _ in range(ACTIONS_MAX):
            if choices.is_at_end:
                break
            name = choices.pick(ACTIONS)
            if has_upsets or name not in UPSETS:
                getattr(self, name)(choices)

    def finish(self) -> None:
        """Come to rest, and look at the books."""
        world = self.world
        world.are_auth_steps_held = False
        world.disk.release()
        while world.disk.under_way is not None:
            world.disk.sync_one()
        for client in self._clients:
            if client.is_open and client.is_stalled:
                client.drain()
        world.advance(60)  # what is written a little later
        books.check(world)

    def end(self, wait_ms: int, *, is_aged: bool = True) -> None:
        """Let everyone leave for good, and see that nothing is left of them.

        ``is_aged``: what was to happen at the end of a session of before has come up since.
        """
        world = self.world
        for client in self._clients:
            if client.is_open:
                client.cut()
        for session in list(world.broker.sessions._by_number.values()):
            self.end_session(session.client_id)
        self._clear_retained()
        self._clients = []
        world.advance(60)
        # One leap: what comes again and again must not be waited for a century long.
        for leap_ms in (wait_ms, 31_000, 31_000):
            world.now_ms += leap_ms
            world.run()
            self._clear_retained()
            world.advance(60)
        books.check(world)
        books.check_empty(world, is_aged=is_aged)

    def end_session(self, client_id: str) -> None:
        """End a session as a client does: by a clean start that keeps nothing."""
        client = self.world.open(5)
        client.send(Connect(client_id, 5, True, 0))
        assert client.connack is not None and client.connack.reason_code == 0
        client.cut()

    def _clear_retained(self) -> None:
        topics = list(self.world.kept.retained)
        if not topics:
            return
        client = self.world.open(4)
        client.send(Connect("clear", 4, True, 0))
        for topic in topics:
            client.send(Publish(topic, b"", 0, True))
        client.cut()

    # --- sending

    def _client(self, choices: Choices) -> Watched | None:
        """One of the connections that are open."""
        self._clients = [client for client in self._clients if client.is_open]
        return choices.pick(self._clients) if self._clients else None

    def _send(self, client: Watched, *packets: Packet) -> None:
        version = client.version
        self._send_bytes(client, b"".join(encode(packet, version) for packet in packets))

    def _send_bytes(self, client: Watched, data: bytes) -> None:
        pieces = self._pieces
        self._pieces = 0
        if pieces == 0 or self._gathering > 0:
            if data:
                client.push_bytes(data)
        else:
            for start in range(0, len(data), pieces):
                if not client.is_open:
                    return
                client.push_bytes(data[start : start + pieces])
                self.world.run()
        if self._gathering > 0:
            self._gathering -= 1
        else:
            self.world.run()

    def _dial(self, choices: Choices) -> Watched | None:
        self._clients = [client for client in self._clients if client.is_open]
        if len(self._clients) >= CLIENTS_MAX:
            return None
        client = self.world.open(choices.pick(VERSIONS))
        self._clients.append(client)
        return client

    def _connect(self, choices: Choices) -> None:
        client = self._dial(choices)
        if client is None:
            client = self._client(choices)
        if client is not None:
            self._send(client, made_packets.connect(choices, client.version))

    def _publish(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is None:
            return
        repeats = choices.byte()
        packets: list[Packet] = []
        for _ in range(1 + (repeats % 16 if repeats > 200 else 0)):
            self._number += 1
            packets.append(made_packets.publish(choices, client.version, self._number))
        self._send(client, *packets)

    def _subscribe(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is not None:
            self._send(client, made_packets.subscribe(choices, client.version))

    def _unsubscribe(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is not None:
            self._send(client, made_packets.unsubscribe(choices))

    def _answer(self, choices: Choices) -> None:
        """Acknowledge what came, as a good client does, mostly in order."""
        client = self._client(choices)
        if client is None or not client.to_answer:
            return
        count = 1 + choices.below(4)
        place = 0 if count < 4 else choices.below(len(client.to_answer))
        packets = client.to_answer[place : place + count]
        del client.to_answer[place : place + count]
        self._send(client, *packets)

    def _release(self, choices: Choices) -> None:
        """Send the PUBREL that a PUBREC may have come for."""
        client = self._client(choices)
        if client is not None:
            self._send(client, Pubrel(made_packets.packet_id(choices)))

    def _acknowledge(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is not None:
            self._send(client, made_packets.acknowledgement(choices, client.version))

    def _any_packet(self, choices: Choices) -> None:
        """Something that few clients send: pings, AUTH, packets of servers, a second CONNECT."""
        client = self._client(choices)
        if client is None:
            return
        kind = choices.below(8)
        packet: Packet = Pingreq()
        if kind == 0:
            packet = made_packets.from_a_server(choices, client.version)
        elif kind == 1:
            packet = made_packets.any_packet(choices, client.version)
        elif kind < 4 and client.version == 5:
            packet = made_packets.auth(choices)
        elif kind == 4:
            refusal = 0x97 if client.version == 5 else 0
            packet = Pubrec(made_packets.packet_id(choices), refusal)
        self._send(client, packet)

    def _damaged(self, choices: Choices) -> None:
        """A packet with some bytes changed, lost or added."""
        client = self._client(choices)
        if client is None:
            return
        packet = made_packets.any_packet(choices, client.version)
        wire = bytearray(encode(packet, client.version))
        for _ in range(1 + choices.below(3)):
            kind = choices.below(4)
            place = choices.below(min(len(wire), 255)) if wire else 0
            if kind == 0:
                wire[place:place] = choices.binary(3)
            elif kind == 1:
                del wire[place : place + 1 + choices.below(3)]
            elif place < len(wire):
                wire[place] = choices.byte()
        self._send_bytes(client, bytes(wire))

    def _raw(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is not None:
            self._send_bytes(client, choices.binary(40))

    def _split(self, choices: Choices) -> None:
        """What is sent next comes in small pieces."""
        self._pieces = 1 + choices.below(9)

    def _burst(self, choices: Choices) -> None:
        """What the clients send next is there in one turn."""
        self._gathering = 2 + choices.below(6)

    # --- connections, disk and time

    def _cut(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is not None:
            client.cut()

    def _leave(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is not None:
            self._send(client, made_packets.disconnect(choices, client.version))

    def _stall(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is not None:
            client.stall()

    def _drain(self, choices: Choices) -> None:
        client = self._client(choices)
        if client is not None and client.is_stalled:
            client.drain()

    def _hold(self, choices: Choices) -> None:
        self.world.disk.hold()

    def _sync_one(self, choices: Choices) -> None:
        self.world.disk.sync_one()

    def _unhold(self, choices: Choices) -> None:
        self.world.disk.is_held = False
        self.world.run()

    def _hold_reads(self, choices: Choices) -> None:
        self.world.disk.hold_reads()

    def _answer_reads(self, choices: Choices) -> None:
        if choices.flag():
            self.world.disk.are_reads_held = False
        self.world.disk.answer_reads()

    def _hold_auth_steps(self, choices: Choices) -> None:
        self.world.are_auth_steps_held = True

    def _answer_auth_steps(self, choices: Choices) -> None:
        self.world.are_auth_steps_held = choices.flag()
        self.world.answer_auth_steps()

    def _wait(self, choices: Choices) -> None:
        self.world.advance(choices.pick(WAITS_MS))

    def _crash(self, choices: Choices) -> None:
        self.world.crash(commit_survives=choices.flag())
        self._restart(choices)

    def _stop(self, choices: Choices) -> None:
        self.world.stop()
        self._restart(choices)

    def _restart(self, choices: Choices) -> None:
        self._clients = []
        self.world.restart(choices.pick((0, 1, 5_000, 70_000)))
        assert not self.world.broker._connections

    def _set_clock_back(self, choices: Choices) -> None:
        self.world.now_ms -= choices.pick((1, 1000, 100_000))
        self.world.run()
