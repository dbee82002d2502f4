"""All subscriptions by topic filter, and the matches of a topic, cached.

A node tallies what is logged for the absent sessions of its filter, all of them together: one that
is absent costs nothing of its own when a message is published.
"""

from typing import TYPE_CHECKING, final

from holdfast.broker.counters import Counters
from holdfast.broker.limits import ROUTE_TOPIC_CHARACTERS_MAX, ROUTES_MAX
from holdfast.broker.session import Session, Subscription, merge

if TYPE_CHECKING:
    from holdfast.broker.shared_group import Group


@final
class Tally:
    """What was logged under one filter for absent sessions, who note where it stood as they left.

    Past ``check_messages`` or ``check_bytes`` one of them may have come to the limit of its queue.
    ``full`` counts those that have, and make their publishers be refused.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.check_messages = 0
        self.check_bytes = 0
        self.full = 0


@final
class FilterNode:
    """One topic filter with its subscriptions. ``generation`` grows with each change.

    The absent ones at QoS 1 and 2 are a chain, through ``Subscription.absent_next``.
    """

    def __init__(self, level: str, parent: "FilterNode | None") -> None:
        self.level = level
        self.parent = parent
        self.children: dict[str, FilterNode] | None = None
        self.filed = 0  # all subscriptions and shared groups of this filter
        self.online: dict[int, Subscription] | None = None  # by session number
        self.first_absent: Subscription | None = None
        self.tally: Tally | None = None
        # What its subscriptions needed of the log at the pass of this number: see ``space``.
        self.needs: list[tuple[int, int]] | None = None
        self.needs_pass = 0
        self.groups: dict[int, Group] | None = None  # by number
        self.generation = 0


@final
class Route:
    """Where messages of one topic go.

    To the ``targets`` online, to one member of each of the ``groups``, and to the log if an
    absent session waits.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.tree_generation = -1
        self.nodes: list[FilterNode] = []
        self.nodes_generation = 0
        self.targets: list[Subscription] = []
        self.groups: list[Group] = []
        self.absent: list[FilterNode] = []  # with absent sessions at QoS 1 or 2

    @property
    def has_absent(self) -> bool:
        """Whether anybody absent waits for messages of this topic."""
        return len(self.absent) > 0

    def is_current(self, tree_generation: int) -> bool:
        if self.tree_generation != tree_generation:
            return False
        generation = 0
        for node in self.nodes:
            generation += node.generation
        return generation == self.nodes_generation


@final
class TopicTree:
    """The tree of topic filters, by level, with the cache of routes."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = Counters() if counters is None else counters
        self._root = FilterNode("", None)
        self._generation = 0  # grows when a filter appears or goes
        self._routes: dict[str, Route] = {}
        self.filters = 0
        self.subscriptions = 0
        self.shared_subscriptions = 0  # members of groups: kept by ``Groups``

    def add(self, subscription: Subscription, is_online: bool) -> None:
        """File a subscription under its filter."""
        node = self._file(subscription.topic_filter)
        self.subscriptions += 1
        subscription.node = node
        self._enter(node, subscription, is_online)

    def add_group(self, group: "Group") -> None:
        """File a shared group under the filter that its messages match."""
        node = self._file(group.inner_filter)
        if node.groups is None:
            node.groups = {}
        node.groups[group.number] = group
        group.node = node
        node.generation += 1

    def remove_group(self, group: "Group") -> None:
        """Take a shared group out."""
        node = group.node
        assert node is not None
        group.node = None
        groups = node.groups
        assert groups is not None
        del groups[group.number]
        if not groups:
            node.groups = None
        node.generation += 1
        self._unfile(node)

    def _file(self, topic_filter: str) -> FilterNode:
        """The node of a filter, which holds one more from now on."""
        node = self._root
        levels = topic_filter.split("/")
        self._counters.work += len(levels)
        for level in levels:
            children = node.children
            if children is None:
                children = {}
                node.children = children
            child = children.get(level)
            if child is None:
                child = FilterNode(level, node)
                children[level] = child
            node = child
        if node.filed == 0:
            self._generation += 1
            self.filters += 1
        node.filed += 1
        return node

    def remove(self, subscription: Subscription, is_online: bool) -> None:
        """Take a subscription out, and nodes that nothing needs any longer."""
        node = subscription.node
        assert node is not None
        subscription.node = None
        self._leave(node, subscription, is_online)
        self.subscriptions -= 1
        self._unfile(node)

    def _unfile(self, node: FilterNode) -> None:
        node.filed -= 1
        if node.filed == 0:
            self._generation += 1
            self.filters -= 1
            self._prune(node)

    def set_online(self, session: Session, is_online: bool) -> None:
        """Turn all subscriptions of a session from absent to online, or back."""
        for subscription in session.subscriptions.values():
            node = subscription.node
            if node is None:
                continue  # a shared one, which its group keeps
            self._leave(node, subscription, not is_online)
            self._enter(node, subscription, is_online)

    def route(self, topic: str) -> Route:
        """The matches of a topic, from the cache while nothing about them has changed."""
        route = self._routes.get(topic)
        if route is not None and route.is_current(self._generation):
            return route
        if route is None:
            route = Route(topic)
            if len(topic) <= ROUTE_TOPIC_CHARACTERS_MAX:
                if len(self._routes) >= ROUTES_MAX:
                    self.forget_routes()
                self._routes[topic] = route
        self._fill(route)
        return route

    def matching(self, topic: str) -> list[FilterNode]:
        """The nodes of the filters that match a topic; the cache of routes is left alone."""
        return _collect(self._root, topic.split("/"), topic[0] == "$", self._counters)

    def forget_routes(self) -> None:
        """Empty the cache."""
        self._routes.clear()

    def _enter(self, node: FilterNode, subscription: Subscription, is_online: bool) -> None:
        if is_online:
            online = node.online
            if online is None:
                online = {}
                node.online = online
            online[subscription.session.number] = subscription
        elif subscription.qos > 0:
            first = node.first_absent
            subscription.absent_next = first
            if first is not None:
                first.absent_before = subscription
            node.first_absent = subscription
        node.generation += 1

    def _leave(self, node: FilterNode, subscription: Subscription, was_online: bool) -> None:
        if was_online:
            online = node.online
            assert online is not None
            del online[subscription.session.number]
            if not online:
                node.online = None
        elif subscription.qos > 0:
            before = subscription.absent_before
            after = subscription.absent_next
            if before is not None:
                before.absent_next = after
            else:
                assert node.first_absent is subscription
                node.first_absent = after
            if after is not None:
                after.absent_before = before
            subscription.absent_before = None
            subscription.absent_next = None
        node.generation += 1

    def _prune(self, node: FilterNode) -> None:
        while node.children is None and node.filed == 0:
            parent = node.parent
            if parent is None:
                return
            children = parent.children
            assert children is not None
            del children[node.level]
            if not children:
                parent.children = None
            node = parent

    def _fill(self, route: Route) -> None:
        topic = route.topic
        nodes = _collect(self._root, topic.split("/"), topic[0] == "$", self._counters)
        route.nodes = nodes
        route.tree_generation = self._generation
        generation = 0
        route.absent = []
        route.groups = []
        for node in nodes:
            generation += node.generation
            if node.first_absent is not None:
                route.absent.append(node)
            if node.groups is not None:
                route.groups.extend(node.groups.values())
        route.nodes_generation = generation
        route.targets = _targets(nodes)


def _collect(
    root: FilterNode, levels: list[str], is_dollar: bool, counters: Counters
) -> list[FilterNode]:
    """The nodes whose filter matches the topic of these levels.

    A filter that begins with a wildcard matches no topic that begins with ``$``. Not recursive:
    a filter may have tens of thousands of levels. Source: [MQTT-4.7.2-1].
    """
    found: list[FilterNode] = []
    reached: list[FilterNode] = [root]
    for depth in range(len(levels)):
        level = levels[depth]
        next_reached: list[FilterNode] = []
        for node in reached:
            children = node.children
            if children is None:
                continue
            child = children.get(level)
            if child is not None:
                next_reached.append(child)
            if depth > 0 or not is_dollar:
                child = children.get("+")
                if child is not None:
                    next_reached.append(child)
                child = children.get("#")
                if child is not None:
                    found.append(child)
        counters.work += len(reached)
        if not next_reached:
            return found
        reached = next_reached
    counters.work += len(reached) + len(found)
    for node in reached:
        if node.filed > 0:
            found.append(node)
        children = node.children
        if children is not None:
            child = children.get("#")  # "a/#" matches "a" too
            if child is not None:
                found.append(child)
    return found


def _targets(nodes: list[FilterNode]) -> list[Subscription]:
    """The online subscriptions of all nodes, those of one session merged."""
    if len(nodes) == 1:
        online = nodes[0].online
        return [] if online is None else list(online.values())
    parts: dict[int, list[Subscription]] = {}
    for node in nodes:
        online = node.online
        if online is not None:
            for number, subscription in online.items():
                known = parts.get(number)
                if known is None:
                    parts[number] = [subscription]
                else:
                    known.append(subscription)
    targets: list[Subscription] = []
    for overlapping in parts.values():
        targets.append(merge(overlapping))
    return targets
