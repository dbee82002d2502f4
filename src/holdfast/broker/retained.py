"""The retained messages: one per topic, found by topic or by filter."""

from typing import final

from holdfast.broker.counters import Counters
from holdfast.broker.limits import Limits
from holdfast.message import Message
from holdfast.protocol.topics import has_wildcard


@final
class _Node:
    def __init__(self) -> None:
        self.children: dict[str, _Node] | None = None
        self.message: Message | None = None


@final
class Retained:
    """All retained messages, in a tree by topic level."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = Counters() if counters is None else counters
        self._root = _Node()
        self.count = 0
        self.payload_bytes = 0

    def set(self, message: Message) -> None:
        """Put ``message`` into the slot of its topic, in place of an earlier one."""
        node = self._root
        for level in message.topic.split("/"):
            children = node.children
            if children is None:
                children = {}
                node.children = children
            child = children.get(level)
            if child is None:
                child = _Node()
                children[level] = child
            node = child
        old = node.message
        if old is None:
            self.count += 1
        else:
            self.payload_bytes -= len(old.payload)
        self.payload_bytes += len(message.payload)
        node.message = message

    def refusal(self, message: Message, limits: Limits) -> str:
        """Why there is no room for a message in the slot of its topic, "" if there is."""
        messages_max = limits.retained_messages_max
        bytes_max = limits.retained_bytes_max
        if messages_max == 0 and bytes_max == 0:
            return ""
        old = self.get(message.topic)
        if 0 < messages_max <= self.count and old is None:
            return f"expected at most {messages_max} retained messages, this is one more"
        size = self.payload_bytes + len(message.payload)
        if old is not None:
            size -= len(old.payload)
        if 0 < bytes_max < size:
            return f"expected at most {bytes_max} bytes of retained messages, it would be {size}"
        return ""

    def get(self, topic: str) -> Message | None:
        """The retained message of a topic."""
        node = self._root
        for level in topic.split("/"):
            children = node.children
            if children is None:
                return None
            child = children.get(level)
            if child is None:
                return None
            node = child
        return node.message

    def clear(self, topic: str) -> bool:
        """Empty the slot of a topic: True if it held a message."""
        path: list[_Node] = [self._root]
        levels = topic.split("/")
        for level in levels:
            children = path[-1].children
            if children is None:
                return False
            child = children.get(level)
            if child is None:
                return False
            path.append(child)
        old = path[-1].message
        if old is None:
            return False
        path[-1].message = None
        self.count -= 1
        self.payload_bytes -= len(old.payload)
        depth = len(levels)
        while depth > 0 and path[depth].message is None and path[depth].children is None:
            children = path[depth - 1].children
            assert children is not None
            del children[levels[depth - 1]]
            if not children:
                path[depth - 1].children = None
            depth -= 1
        return True

    def matching(self, topic_filter: str) -> list[Message]:
        """The retained messages whose topic matches a filter.

        Source: [MQTT-4.7.2-1] for the topics that begin with ``$``.
        """
        if not has_wildcard(topic_filter):
            message = self.get(topic_filter)
            return [] if message is None else [message]
        found: list[Message] = []
        reached: list[_Node] = [self._root]
        is_first = True
        for level in topic_filter.split("/"):
            if level == "#":
                _collect_below(reached, is_first, found, self._counters)
                return found
            next_reached: list[_Node] = []
            for node in reached:
                children = node.children
                if children is None:
                    continue
                if level == "+":
                    for name, any_child in children.items():
                        if not (is_first and name.startswith("$")):
                            next_reached.append(any_child)
                else:
                    child = children.get(level)
                    if child is not None:
                        next_reached.append(child)
            self._counters.work += len(next_reached)
            reached = next_reached
            is_first = False
        for node in reached:
            message = node.message
            if message is not None:
                found.append(message)
        return found


def _collect_below(
    start: list[_Node], is_root: bool, found: list[Message], counters: Counters
) -> None:
    """Add the messages of these nodes and of all below them."""
    reached = start
    is_first = is_root
    while reached:
        counters.work += len(reached)
        next_reached: list[_Node] = []
        for node in reached:
            message = node.message
            if message is not None:
                found.append(message)
            children = node.children
            if children is not None:
                for name, child in children.items():
                    if not (is_first and name.startswith("$")):
                        next_reached.append(child)
        reached = next_reached
        is_first = False
