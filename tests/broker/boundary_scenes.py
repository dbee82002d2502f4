"""Brings a broker to a stage of an exchange, and through a boundary: see ``boundaries``."""

from collections.abc import Callable

from holdfast.message import Properties
from holdfast.protocol.packets import (
    Connack,
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Will,
)
from tests.broker.boundaries import EXPIRY_S, WILL_DELAY_S, Cell, Incoming
from tests.broker.model_store import ModelStore
from tests.broker.world import Client, World, describe

LONGER_MS = EXPIRY_S * 1000 + 1000
LAZY_MS = 100  # longer than an acknowledgement may wait to be written


class Application:
    """The client's side of the exchanges it receives; it outlives connections."""

    def __init__(self) -> None:
        self.had = ""
        self.held: set[int] = set()  # QoS 2 identifiers, from PUBLISH until PUBREL

    def take(self, packets: list[Packet]) -> list[Packet]:
        """Take what came; returns what has to be answered."""
        answers: list[Packet] = []
        for packet in packets:
            packet_id = getattr(packet, "packet_id", 0)
            if isinstance(packet, Publish):
                if packet_id not in self.held:
                    self.had += packet.payload.decode()
                if packet.qos == 1:
                    answers.append(Puback(packet_id))
                elif packet.qos == 2:
                    self.held.add(packet_id)
                    answers.append(Pubrec(packet_id))
            elif isinstance(packet, Pubrel):
                self.held.discard(packet_id)
                answers.append(Pubcomp(packet_id))
        return answers


class Scene:
    """A world with the client ``c`` under test, a publisher, and an observer that comes last."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.qos = int(cell.stage.name[1])
        self.store = ModelStore()
        self.world = World(store=self.store)
        self.application = Application()
        self._answers: list[Packet] = []  # of the application, not sent yet
        observer = self.world.hello("observer")
        observer.subscribe("w", 1)
        if isinstance(cell.stage, Incoming):
            observer.subscribe("t", 2)
        observer.cut()
        # 3.1.1 has no other way to a finite expiry.
        self.world.limits.session_expiry_default_s = EXPIRY_S
        self._publisher = self.world.transient("p")
        self._last_id = 0
        self.client = self._publisher  # until the one under test comes

    # --- acting

    def connect(self, version: int, *, clean: bool = False, has_will: bool = False) -> Client:
        will: Will | None = None
        if has_will:
            properties = Properties()
            if version == 5:
                properties.will_delay_interval = WILL_DELAY_S
            will = Will("w", b"gone", 1, properties=properties if version == 5 else None)
        return self.world.connect("c", version=version, clean=clean, expiry_s=EXPIRY_S, will=will)

    def come(self, *, has_will: bool = True) -> None:
        """Connect, or come back, on the way to the stage."""
        self.client = self.connect(self.cell.version, has_will=has_will)
        first = self.client.packets()
        assert isinstance(first[0], Connack)
        self.application.take(first)

    def publish(
        self, *payloads: str, topic: str = "t", qos: int = -1, retain: bool = False
    ) -> None:
        """Publish in one piece, so that it goes into one commit."""
        if not self._publisher.is_open:
            self._publisher = self.world.transient("p")
        qos = self.qos if qos < 0 else qos
        packets: list[Publish] = []
        for payload in payloads:
            self._last_id += 1
            packet_id = self._last_id if qos > 0 else 0
            packets.append(Publish(topic, payload.encode(), qos, retain, False, packet_id))
        self._publisher.push(*packets)
        self.world.run()
        if qos == 2 and not self.world.disk.is_held:
            self._publisher.send(*(Pubrel(packet.packet_id) for packet in packets))

    def acknowledged(self) -> list[str]:
        """What the publisher was told since the last look."""
        return self._publisher.received()

    def window(self, count: int) -> None:
        self.world.limits.in_flight_max = count

    def look(self) -> list[str]:
        """Let the application take what came; ``complete`` answers it."""
        packets = self.client.packets()
        self._answers.extend(self.application.take(packets))
        return [describe(packet) for packet in packets]

    def complete(self) -> None:
        """Go on until every exchange has come to its end."""
        self.look()
        while self._answers:
            answers, self._answers = self._answers, []
            self.client.send(*answers)
            self.look()

    # --- the boundary

    def pass_boundary(self) -> None:
        """Let the boundary's events happen, one after the other."""
        cell = self.cell
        before = self.client
        self._answers = []
        for event in cell.boundary.events:
            self._happen(event)
        assert before.received() == cell.farewell
        assert not before.is_open
        self.world.disk.release()

    def _happen(self, event: str) -> None:
        world, client = self.world, self.client
        if event == "cut":
            if client.is_open:
                client.cut()
        elif event == "leave":
            properties = Properties()
            properties.session_expiry_interval = 0
            client.disconnect(properties=properties)
        elif event == "hold":
            world.disk.hold()
        elif event == "stop":
            world.stop()
        elif event in ("crash", "crash, kept"):
            world.crash(commit_survives=event == "crash, kept")
        elif event == "start":
            world.restart()
        elif event == "start late":
            world.restart(after_ms=LONGER_MS)
        elif event == "wait":
            world.advance(LONGER_MS)
        else:
            assert event in ("connect", "connect clean"), event
            self.client = self.connect(self.cell.back, clean=event == "connect clean")
            # Also those come now that a connection asked for that is no more.
            world.disk.are_reads_held = False
            world.run()

    # --- looking

    @property
    def number(self) -> int:
        session = self.world.broker.sessions.find("c")
        assert session is not None
        return session.number

    def observe(self) -> str:
        """What the observer is given of topic ``t``, and a ``!`` for each will."""
        observer = self.world.connect("observer")
        application = Application()
        answers = application.take(observer.packets())
        while answers:
            observer.send(*answers)
            answers = application.take(observer.packets())
        self.world.advance(LAZY_MS)
        observer.cut()
        return application.had.replace("gone", "!")

    def is_in_store(self, number: int) -> bool:
        """Whether anything of this session is left on the disk."""
        store = self.store
        has_filters = any(key[0] == number for key in store.subscriptions)
        return has_filters or number in store.sessions or number in store.states


# --- stages of what the broker sends


def queued(scene: Scene) -> None:
    scene.come(has_will=False)
    scene.client.subscribe("t", 2)
    scene.look()
    scene.client.cut()
    scene.publish("a", "b")
    assert len(scene.acknowledged()) >= 2


def queued_commit_held(scene: Scene) -> None:
    scene.come(has_will=False)
    scene.client.subscribe("t", 2)
    scene.look()
    scene.client.cut()
    scene.world.disk.hold()
    scene.publish("a", "b")
    assert scene.acknowledged() == []


def subscribed(scene: Scene) -> None:
    scene.come()
    scene.client.subscribe("t", 2)
    scene.client.packets()


def sent_commit_held(scene: Scene) -> None:
    subscribed(scene)
    scene.world.disk.hold()
    scene.publish("a", "b")
    assert scene.acknowledged() == scene.look() == []


def sent(scene: Scene) -> None:
    subscribed(scene)
    scene.publish("a", "b")
    assert scene.look() == [f"PUBLISH t a q{scene.qos} #1", f"PUBLISH t b q{scene.qos} #2"]


def window_full(scene: Scene) -> None:
    scene.window(2)
    subscribed(scene)
    scene.window(256)
    scene.publish("a", "b", "c", "d")
    assert len(scene.look()) == 2


def socket_full(scene: Scene) -> None:
    subscribed(scene)
    scene.publish("a")
    assert len(scene.look()) == 1
    scene.client.stall()
    scene.publish("b", "c")


def reading_the_log(scene: Scene) -> None:
    queued(scene)
    scene.world.crash()
    scene.world.restart()
    scene.world.disk.hold_reads()
    scene.come()
    assert scene.world.disk.reads


def resent_in_part(scene: Scene) -> None:
    scene.come(has_will=False)
    scene.client.subscribe("t", 2)
    scene.publish("a", "b", "c")
    scene.look()
    scene.client.cut()
    scene.window(1)
    scene.come()
    scene.window(256)


def resending_read_held(scene: Scene) -> None:
    scene.come(has_will=False)
    scene.client.subscribe("t", 2)
    scene.publish("a", "b", "c")
    scene.look()
    scene.world.crash()
    scene.world.restart()
    scene.world.disk.hold_reads()
    scene.come()
    assert scene.world.disk.reads


def retained_commit_held(scene: Scene) -> None:
    scene.publish("a", retain=True)
    scene.come()
    scene.world.disk.hold()
    scene.client.subscribe("t", 2)
    assert scene.look() == []


def retained_sent(scene: Scene) -> None:
    scene.publish("a", retain=True)
    subscribed_with_retained(scene, "t")
    scene.publish("b", retain=True)
    assert scene.look() == [f"PUBLISH t b q{scene.qos} #2"]


def retained_window_full(scene: Scene) -> None:
    scene.publish("a", retain=True)
    scene.publish("b", topic="t/1", retain=True)
    scene.window(1)
    subscribed_with_retained(scene, "t/#")
    scene.window(256)
    scene.publish("", topic="t/1", qos=0, retain=True)
    assert scene.look() == ["PUBLISH t/1 q0"]


def subscribed_with_retained(scene: Scene, topic_filter: str) -> None:
    scene.come()
    scene.client.subscribe(topic_filter, 2)
    assert scene.look() == ["SUBACK #1 0x02", f"PUBLISH t a q{scene.qos} #1 retain"]


def acknowledged(scene: Scene) -> None:
    sent(scene)
    scene.client.send(Puback(1))


def pubrel_held(scene: Scene) -> None:
    sent(scene)
    scene.world.disk.hold()
    scene.client.send(Pubrec(1))
    assert scene.look() == []


def pubrel_sent(scene: Scene) -> None:
    sent(scene)
    scene.client.send(Pubrec(1))
    assert scene.look() == ["PUBREL #1"]


def completed(scene: Scene) -> None:
    pubrel_sent(scene)
    scene.client.send(Pubcomp(1))


# --- stages of what the client publishes


def ready(scene: Scene) -> None:
    """A session with something of each kind that must not be left over."""
    scene.come()
    scene.client.subscribe("own", 1)
    scene.client.packets()


def publish_sent(scene: Scene) -> None:
    ready(scene)
    scene.client.push(Publish("t", b"a", scene.qos, packet_id=1))


def publish_held(scene: Scene) -> None:
    ready(scene)
    scene.world.disk.hold()
    scene.client.publish("t", "a", scene.qos, 1)
    assert scene.look() == []


def publish_answered(scene: Scene) -> None:
    ready(scene)
    scene.client.publish("t", "a", scene.qos, 1)
    assert scene.look() == ["PUBACK #1" if scene.qos == 1 else "PUBREC #1"]


def pubrel_pushed(scene: Scene) -> None:
    publish_answered(scene)
    scene.client.push(Pubrel(1))


def pubcomp_held(scene: Scene) -> None:
    publish_answered(scene)
    scene.world.disk.hold()
    scene.client.send(Pubrel(1))
    assert scene.look() == []


def done(scene: Scene) -> None:
    publish_answered(scene)
    if scene.qos == 2:
        scene.client.send(Pubrel(1))
        assert scene.look() == ["PUBCOMP #1"]


OUTGOING_STAGES: dict[str, Callable[[Scene], None]] = {
    "queued": queued,
    "queued_commit_held": queued_commit_held,
    "sent_commit_held": sent_commit_held,
    "sent": sent,
    "window_full": window_full,
    "socket_full": socket_full,
    "reading_the_log": reading_the_log,
    "resent_in_part": resent_in_part,
    "resending_read_held": resending_read_held,
    "retained_commit_held": retained_commit_held,
    "retained_sent": retained_sent,
    "retained_window_full": retained_window_full,
    "acknowledged": acknowledged,
    "pubrel_held": pubrel_held,
    "pubrel_sent": pubrel_sent,
    "completed": completed,
}

INCOMING_STAGES: dict[str, Callable[[Scene], None]] = {
    "publish_sent": publish_sent,
    "puback_held": publish_held,
    "pubrec_held": publish_held,
    "pubrec_sent": publish_answered,
    "pubrel_sent": pubrel_pushed,
    "pubcomp_held": pubcomp_held,
    "done": done,
}


def arrive_at(cell: Cell) -> Scene:
    """A world at the stage of a cell."""
    scene = Scene(cell)
    stages = INCOMING_STAGES if isinstance(cell.stage, Incoming) else OUTGOING_STAGES
    stages[cell.stage.name[3:]](scene)
    return scene
