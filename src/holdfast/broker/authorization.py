"""Where permissions meet connections: what follows when they change, and what is told of them."""

from typing import Final, final

from holdfast.broker.commits import Commits
from holdfast.broker.connection import Connection
from holdfast.broker.delayed import PREFIX, is_delayed
from holdfast.broker.delivery import Delivery
from holdfast.broker.events import WARNING, Event
from holdfast.broker.groups import Groups
from holdfast.broker.permissions import Permissions, Verdict

TELL_INTERVAL_MS: Final = 10_000  # between two lines about what one client was denied
SHOWN_CHARACTERS_MAX: Final = 100  # of a topic, in such a line


def may_publish(permissions: Permissions, topic: str, retain: bool) -> bool:
    """Whether a PUBLISH or a will is allowed; a delayed one is judged by the topic inside."""
    return permissions.may_publish(judged_topic(topic), retain)


def judged_topic(topic: str) -> str:
    """The topic that a message is to reach.

    An address without one is judged as it stands; if that is allowed it is refused all the same.
    """
    if not is_delayed(topic):
        return topic
    slash = topic.find("/", len(PREFIX))
    return topic if slash < 0 or slash + 1 == len(topic) else topic[slash + 1 :]


@final
class Authorization:
    """Looks after the connections whose clients have permissions."""

    def __init__(
        self, commits: Commits, delivery: Delivery, groups: Groups, events: list[Event]
    ) -> None:
        self._groups = groups
        self._commits = commits
        self._delivery = delivery
        self._events = events

    def changed(self, connection: Connection) -> None:
        """A connection has permissions, maybe others than before.

        They hold for what comes next. A will that they do not allow is dropped, and what a shared
        group kept waiting may be this client's now, or another's.
        """
        session = connection.session
        if session is None:
            return
        permissions = connection.permissions
        will = session.will
        if (
            will is not None
            and permissions is not None
            and not may_publish(permissions, will.topic, will.retain)
        ):
            session.will = None
            self._commits.touch_row(session)
            text = f"will dropped: publish to {_shown(will.topic)} is allowed no longer"
            self._tell(connection, text)
        self._groups.permissions_changed(session)

    def tell_publish(self, connection: Connection, topic: str, retain: bool) -> None:
        """Tell the operator that a PUBLISH was denied, and by which rule."""
        permissions = connection.permissions
        assert permissions is not None
        if self._is_to_tell(permissions):
            verdict = permissions.judge_publish(judged_topic(topic), retain)
            what = "retained publish" if retain else "publish"
            self._tell_denied(connection, permissions, f"{what} to {_shown(topic)}", verdict)

    def tell_subscribe(self, connection: Connection, topic_filter: str, narrows: bool) -> None:
        """Tell the operator that a subscription was denied, and by which rule."""
        permissions = connection.permissions
        assert permissions is not None
        if self._is_to_tell(permissions):
            verdict = permissions.judge_subscribe(topic_filter, narrows)
            what = f"subscribe to {_shown(topic_filter)}"
            self._tell_denied(connection, permissions, what, verdict)

    def _is_to_tell(self, permissions: Permissions) -> bool:
        """Whether a line is due; a client can be denied with each packet of a few bytes."""
        now_ms = self._delivery.now_ms
        if 0 <= now_ms - permissions.told_ms < TELL_INTERVAL_MS:
            permissions.untold += 1
            return False
        permissions.told_ms = now_ms
        return True

    def _tell_denied(
        self, connection: Connection, permissions: Permissions, what: str, verdict: Verdict
    ) -> None:
        rule = verdict.rule
        why = "no rule allows it" if rule is None else f"by {rule.name}"
        more = ""
        if permissions.untold > 0:
            more = f"; {permissions.untold} more since the last such line"
            permissions.untold = 0
        self._tell(connection, f"denied: {what}, {why}{more}")

    def _tell(self, connection: Connection, text: str) -> None:
        client_id, user_name = connection.client_id, connection.user_name
        self._events.append(Event(WARNING, text, client_id, connection.address, user_name))


def _shown(topic: str) -> str:
    """A topic as a line of the log has room for; what is not printable is escaped there."""
    if len(topic) > SHOWN_CHARACTERS_MAX:
        topic = topic[:SHOWN_CHARACTERS_MAX] + "…"
    return f"'{topic}'"
