"""Which topics, by number, a filter matches; kept between reads and completed with new topics."""

from typing import Final, final

from holdfast.protocol.topics import match_levels, split_share

# Up to so many topics a read may go through the log topic by topic. Beyond, a set is a map with one
# byte per topic known to the store, and a read looks at all messages.
LISTED_TOPICS_MAX: Final = 1024

_MAPPED: Final = b"\x01"


def is_exact(topic_filter: str) -> bool:
    """Whether a filter, its share name aside, names one topic."""
    return "+" not in topic_filter and "#" not in topic_filter


def topic_of(topic_filter: str) -> str:
    """The one topic of an exact filter."""
    return split_share(topic_filter)[1]


@final
class TopicSet:
    """The topics up to the number ``seen`` that a filter with wildcards matches.

    ``prefix`` begins all their names, ``suffix`` ends them. ``forgotten`` is the store's count of
    removed topics when the set was made: removed ones stay in the set, where they match nothing.
    """

    def __init__(self, topic_filter: str, forgotten: int) -> None:
        wanted = split_share(topic_filter)[1]
        wildcard = min(at for at in (wanted.find("+"), wanted.find("#")) if at >= 0)
        self.prefix: Final = wanted[:wildcard]
        self.suffix: Final = "" if wanted.endswith("#") else wanted[wanted.rindex("+") + 1 :]
        self.forgotten: Final = forgotten
        self.seen = 0
        self.count = 0
        # "a/#" also matches "a", whose name the prefix "a/" does not begin.
        self.parent: Final = wanted[:-2] if wanted == f"{self.prefix}#" and self.prefix else None
        self._levels: Final = wanted.split("/")
        self._is_below_prefix: Final = wanted == f"{self.prefix}#"
        self._numbers: set[int] | None = set()
        self._map = bytearray()  # complete where there are no numbers, else when it was asked for

    @property
    def numbers(self) -> set[int] | None:
        """The topics; None where they are so many that there is only the map."""
        return self._numbers

    @property
    def cost_bytes(self) -> int:
        """About what the set takes in memory."""
        return 1000 + 60 * len(self._numbers or ()) + len(self._map)

    def offer(self, number: int, name: str) -> None:
        """Look at a topic above ``seen`` whose name begins with the prefix."""
        if not self._matches(name):
            return
        self.count += 1
        if self._numbers is None:
            mark(self._map, number)
            return
        self._map.clear()
        self._numbers.add(number)
        if len(self._numbers) > LISTED_TOPICS_MAX:
            self._map = self._as_map()
            self._numbers = None

    def has(self, number: int) -> bool:
        """Whether a topic is in the set."""
        if self._numbers is not None:
            return number in self._numbers
        return number < len(self._map) and self._map[number] == 1

    def add_to(self, union: bytearray) -> bytearray:
        """The union of this set with a map of others, which is used up."""
        if not self._map:
            self._map = self._as_map()
        if not union:
            return self._map[:]
        size = max(len(union), len(self._map))
        bits = int.from_bytes(union, "little") | int.from_bytes(self._map, "little")
        return bytearray(bits.to_bytes(size, "little"))

    def _as_map(self) -> bytearray:
        topics = bytearray()
        for number in self._numbers or ():
            mark(topics, number)
        return topics

    def _matches(self, name: str) -> bool:
        if not self.prefix and name.startswith("$"):
            return False  # [MQTT-4.7.2-1]
        return self._is_below_prefix or match_levels(self._levels, name.split("/"))


def mark(topics: bytearray, number: int) -> None:
    """Put a topic into a map."""
    if number >= len(topics):
        topics.extend(bytes(number + 1 - len(topics)))
    topics[number : number + 1] = _MAPPED
