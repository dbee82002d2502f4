"""The Topic Aliases of one connection, each direction for itself. Source: MQTT 5.0 §3.3.2.3.4.

Either end uses them. They belong to the connection: both tables go with it [MQTT-3.3.2-7].
"""

from typing import final

from holdfast.errors import ProtocolError
from holdfast.protocol.reason_codes import PROTOCOL_ERROR, TOPIC_ALIAS_INVALID


@final
class AliasesIn:
    """What the aliases of the peer stand for; ``maximum`` is what was announced to it."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._topics: dict[int, str] = {}

    def topic(self, alias: int, topic: str) -> str:
        """The topic of a PUBLISH that has an alias; one that has a topic too sets it anew.

        Raises ProtocolError for an alias above the maximum, or without topic for an unknown one.
        Source: [MQTT-3.3.2-9], [MQTT-3.3.2-12].
        """
        if alias > self._maximum:
            raise ProtocolError(
                TOPIC_ALIAS_INVALID,
                f"expected a Topic Alias of at most {self._maximum}, {alias} came",
            )
        if topic:
            self._topics[alias] = topic
            return topic
        known = self._topics.get(alias)
        if known is None:
            raise ProtocolError(
                PROTOCOL_ERROR, f"expected a Topic Name, an unknown Topic Alias {alias} came"
            )
        return known


@final
class AliasesOut:
    """The aliases that the peer was sent, at most ``maximum``.

    First come, first served: an alias costs three bytes once and pays from the second message on.
    Giving it to the topic used last would cost them with every message where there are more topics
    than aliases, and need an order kept for each message.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._aliases: dict[str, int] = {}

    def alias(self, topic: str) -> int:
        """The alias that the peer knows for a topic, 0 for none."""
        return self._aliases.get(topic, 0)

    @property
    def next_alias(self) -> int:
        """The alias that ``put`` gives next, 0 if all are given."""
        count = len(self._aliases)
        return count + 1 if count < self._maximum else 0

    def put(self, topic: str) -> None:
        """Take note that a packet with this topic and ``next_alias`` goes to the peer."""
        assert topic not in self._aliases
        assert len(self._aliases) < self._maximum
        self._aliases[topic] = len(self._aliases) + 1
