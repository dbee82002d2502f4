"""Topic Names and Topic Filters: their rules, and which filter matches which name.

Source: MQTT 5.0 §4.7 and §4.8.2, MQTT 3.1.1 §4.7.
"""

from typing import Final, final

from holdfast.errors import ProtocolError, Refused
from holdfast.protocol.reason_codes import TOPIC_FILTER_INVALID, TOPIC_NAME_INVALID
from holdfast.protocol.wire import STRING_BYTES_MAX, text_of

SHARE_PREFIX: Final = "$share/"
QUEUE_PREFIX: Final = "$queue/"  # not of the standard: the one unnamed group of a filter
SYS_PREFIX: Final = "$SYS/"

# What a TopicCache keeps: with these numbers at most some 5 MB.
CACHED_TOPICS_MAX: Final = 4096
CACHED_TOPIC_BYTES_MAX: Final = 256


def check_topic(topic: str) -> None:
    """Assure that a string is a Topic Name.

    Raises ProtocolError (Topic Name invalid) if it is empty, holds a wildcard or U+0000, or is
    longer than 65,535 bytes.
    Source: [MQTT-4.7.0-1], [MQTT-4.7.3-1] to [MQTT-4.7.3-3]; 3.1.1: [MQTT-4.7.1-1].
    """
    if not topic:
        raise _bad_topic("expected a Topic Name of at least one character, an empty one came")
    if "+" in topic or "#" in topic:
        raise _bad_topic("expected a Topic Name without wildcards, one with '+' or '#' came")
    fault = _string_fault(topic)
    if fault:
        raise _bad_topic(f"expected a Topic Name {fault}")


def check_filter(topic_filter: str) -> None:
    """Assure that a string is a Topic Filter, that of a Shared Subscription included.

    Raises ProtocolError (Topic Filter invalid): what is wrong with one filter of a SUBSCRIBE is
    answered in SUBACK by 5.0 and ends the connection in 3.1.1, so ``decode`` leaves it to its
    caller.
    Source: [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1] to [MQTT-4.7.3-3], [MQTT-4.8.2-1],
    [MQTT-4.8.2-2].
    """
    fault = _string_fault(topic_filter)
    if fault:
        raise _bad_filter(f"expected a Topic Filter {fault}")
    share_name, inner = split_share(topic_filter)
    if share_name and is_shared(inner):
        # It could match nothing but topics that begin with "$share/", and who matches its inner
        # filter would take that for a shared one.
        raise _bad_filter("expected a Topic Filter behind the ShareName, a shared one came")
    if not inner:
        raise _bad_filter("expected a Topic Filter of at least one character, an empty one came")
    if "#" not in inner and "+" not in inner:
        return
    wanted = inner.split("/")
    last = len(wanted) - 1
    for index, level in enumerate(wanted):
        if "#" in level and (level != "#" or index != last):
            raise _bad_filter("expected '#' alone in the last level of a Topic Filter")
        if "+" in level and level != "+":
            raise _bad_filter("expected '+' alone in a level of a Topic Filter")


def split_share(topic_filter: str) -> tuple[str, str]:
    """A filter as its ShareName, "" where it is not shared, and the filter that matches.

    ``$queue/`` stands for a group that needs no name; "$queue" is given as its ShareName.
    Raises ProtocolError (Topic Filter invalid) for a shared one without a proper ShareName or
    without a filter behind it.
    Source: [MQTT-4.8.2-1], [MQTT-4.8.2-2].
    """
    if topic_filter.startswith(QUEUE_PREFIX):
        inner = topic_filter[len(QUEUE_PREFIX) :]
        if not inner:
            raise _bad_filter("expected '$queue/' and a Topic Filter")
        return "$queue", inner
    if not topic_filter.startswith(SHARE_PREFIX):
        return "", topic_filter
    start = len(SHARE_PREFIX)
    slash = topic_filter.find("/", start)
    if slash < 0 or slash + 1 == len(topic_filter):
        raise _bad_filter("expected '$share/', a ShareName, '/' and a Topic Filter")
    share_name = topic_filter[start:slash]
    if not share_name or "+" in share_name or "#" in share_name:
        raise _bad_filter("expected a ShareName without wildcards and not empty")
    return share_name, topic_filter[slash + 1 :]


def is_shared(topic_filter: str) -> bool:
    """Whether a filter asks for a Shared Subscription, well-formed or not."""
    return topic_filter.startswith((SHARE_PREFIX, QUEUE_PREFIX))


def is_sys_topic(topic: str) -> bool:
    """Whether a Topic Name or Topic Filter is ``$SYS`` or lies below it: a server's own.

    Source: MQTT 5.0 §4.7.2.
    """
    return topic.startswith(SYS_PREFIX) or topic == "$SYS"


def has_wildcard(topic_filter: str) -> bool:
    """Whether a filter holds '+' or '#'."""
    return "+" in topic_filter or "#" in topic_filter


def levels(topic: str) -> list[str]:
    """The levels of a Topic Name or Topic Filter; an empty level is one too."""
    return topic.split("/")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid Topic Filter matches a valid Topic Name.

    The filter of a Shared Subscription is matched by what follows its ShareName.
    Source: [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.2-1], [MQTT-4.7.3-4].
    """
    _, wanted = split_share(topic_filter)
    if "+" not in wanted and "#" not in wanted:
        return wanted == topic
    if topic.startswith("$") and wanted[0] in "+#":
        return False
    return match_levels(wanted.split("/"), topic.split("/"))


def match_levels(wanted: list[str], topic_levels: list[str]) -> bool:
    """``matches`` for levels, without the rules for '$' and shared filters."""
    last = len(wanted) - 1
    # "a/#" also matches "a", its parent level.
    if wanted[last] == "#":
        if len(topic_levels) < last:
            return False
    elif len(topic_levels) != len(wanted):
        return False
    else:
        last += 1
    for index in range(last):
        level = wanted[index]
        if level != "+" and level != topic_levels[index]:
            return False
    return True


@final
class TopicCache:
    """Topic Names as they came from the wire, each checked once and kept as one string.

    One for all connections of a broker is meant: a name then is the same object everywhere, with
    its hash at hand. When it is full it starts afresh, which costs some decoding.

    It keeps no name that is above ``levels_max`` or ``bytes_max``, 0 for no bound: those are
    refused, each time.
    """

    def __init__(
        self, topics_max: int = CACHED_TOPICS_MAX, levels_max: int = 0, bytes_max: int = 0
    ) -> None:
        self._topics_max = topics_max
        self._levels_max = levels_max
        self._bytes_max = bytes_max
        self._topics: dict[bytes, str] = {}

    def __len__(self) -> int:
        """How many names are kept."""
        return len(self._topics)

    def topic(self, raw: bytes) -> str:
        """The Topic Name of these bytes, which are not empty.

        Raises ProtocolError: Malformed Packet unless it is a proper UTF-8 string, Topic Name
        invalid if it holds a wildcard. Raises Refused (Topic Name invalid) above a bound.
        """
        topic = self._topics.get(raw)
        if topic is None:
            topic = text_of(raw, "PUBLISH")
            check_topic(topic)
            fault = size_fault(topic, len(raw), self._levels_max, self._bytes_max)
            if fault:
                raise Refused(TOPIC_NAME_INVALID, fault)
            if len(raw) <= CACHED_TOPIC_BYTES_MAX:
                if len(self._topics) >= self._topics_max:
                    self._topics.clear()
                self._topics[raw] = topic
        return topic


def size_fault(topic: str, size: int, levels_max: int, bytes_max: int) -> str:
    """Why a Topic Name or Topic Filter of so many bytes is above a bound, "" if it is not."""
    if 0 < bytes_max < size:
        return f"expected a topic of at most {bytes_max} bytes, {size} came"
    if 0 < levels_max <= topic.count("/"):
        return f"expected a topic of at most {levels_max} levels, {topic.count('/') + 1} came"
    return ""


def _string_fault(text: str) -> str:
    """What keeps a string off the wire, "" if nothing does."""
    if "\0" in text:
        return "without U+0000"
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return "without lone surrogates"
    if size > STRING_BYTES_MAX:
        return f"of at most {STRING_BYTES_MAX} bytes, {size} came"
    return ""


def _bad_topic(detail: str) -> ProtocolError:
    return ProtocolError(TOPIC_NAME_INVALID, detail)


def _bad_filter(detail: str) -> ProtocolError:
    return ProtocolError(TOPIC_FILTER_INVALID, detail)
