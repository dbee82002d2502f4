"""Clients that keep to the rules of MQTT, as far as a random walk lets them."""

from collections.abc import Callable

from holdfast.message import Properties
from holdfast.protocol.packets import Packet, Publish
from tests.broker.holdings import Held, Sent
from tests.broker.world import Client

Effect = Callable[[], None]


class Link:
    """One connection of a peer."""

    def __init__(self, client: Client, window: int, alias_maximum: int) -> None:
        self.client = client
        self.window = window
        self.alias_maximum = alias_maximum  # what it told the broker
        self.aliases: dict[int, str] = {}  # those of the broker
        self.own_aliases: dict[int, str] = {}
        self.held: Held | None = None  # once CONNECT is carried out
        self.is_attached = False  # it holds the session
        self.queue: list[tuple[Packet, Effect]] = []  # to be sent with the next ``flush``
        self.acknowledgements: list[Packet] = []
        self.open: set[int] = set()  # QoS 1 and 2 messages on their way to the client
        self.requests: dict[int, tuple[int, list[int]]] = {}  # (un)subscribes: index and answer
        self.expected_present = False
        self.connect_index = 0
        self.stalled_until_ms = 0  # when it was seen last not to read
        self.is_welcome = False  # CONNACK has come
        self.is_leaving = False

    def topic_of(self, packet: Publish) -> str:
        """The topic of a PUBLISH that came, its Topic Alias resolved."""
        alias = None if packet.properties is None else packet.properties.topic_alias
        if alias is None:
            return packet.topic
        assert alias <= self.alias_maximum
        if packet.topic:
            assert alias not in self.aliases, "nothing gives an alias to another topic"
            self.aliases[alias] = packet.topic
        return self.aliases[alias]

    def give_alias(self, packet: Publish, alias: int) -> None:
        """Let a PUBLISH set this alias, or use it if it is that of its topic."""
        if packet.properties is None:
            packet.properties = Properties()
        packet.properties.topic_alias = alias
        if self.own_aliases.get(alias) == packet.topic:
            packet.topic = ""
        else:
            self.own_aliases[alias] = packet.topic


class Outgoing:
    """A message that the peer publishes: ``sent``, ``received`` (PUBREC came) or ``released``."""

    def __init__(self, message: Sent) -> None:
        self.message = message
        self.stage = "sent"


class Peer:
    """A client that keeps to the rules, with its own part of the session state."""

    def __init__(self, client_id: str, version: int, expiry_s: int) -> None:
        self.client_id = client_id
        self.version = version
        self.expiry_s = expiry_s
        self.link: Link | None = None
        self.published = 0
        self.last_id = 0
        self.last_request_id = 100
        self.outgoing: dict[int, Outgoing] = {}
        self.unacknowledged: dict[int, str] = {}  # received at QoS 1
        self.taken: dict[int, str] = {}  # received at QoS 2, until PUBREL
        self.recorded: set[int] = set()  # of these, those whose PUBREC was sent
        # The session that this state belongs to. A client cannot tell when a CONNACK that it did
        # not see began another one, so the walk tells it.
        self.known: Held | None = None

    def next_id(self) -> int:
        while True:
            self.last_id = self.last_id % 20 + 1
            if self.last_id not in self.outgoing:
                return self.last_id

    def forget(self) -> None:
        """The session is a new one: only QoS 1 messages may be published once more."""
        self.unacknowledged = {}
        self.taken = {}
        self.recorded = set()
        for packet_id, outgoing in list(self.outgoing.items()):
            if outgoing.message.qos == 2:
                del self.outgoing[packet_id]

    def next_request_id(self) -> int:
        self.last_request_id += 1
        return self.last_request_id
