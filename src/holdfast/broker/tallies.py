"""What the tallies of topic filters say of absent sessions."""

from holdfast.broker.session import Session
from holdfast.broker.topic_tree import FilterNode


def tallied(session: Session) -> tuple[int, int]:
    """The sums of the tallies of a session's filters."""
    messages = 0
    size = 0
    for subscription in session.subscriptions.values():
        node = subscription.node
        if node is not None and subscription.qos > 0:
            tally = node.tally
            if tally is not None:
                messages += tally.messages
                size += tally.bytes
    return messages, size


def may_overlap(session: Session) -> bool:
    """Whether one message may match two filters of a session."""
    return session.wildcards is not None and len(session.subscriptions) > 1


def full_session(node: FilterNode) -> str:
    """The client identifier of an absent session of this filter whose queue is full."""
    subscription = node.first_absent
    while subscription is not None:
        session = subscription.session
        if session.queue is not None and session.queue.is_full:
            return session.client_id
        subscription = subscription.absent_next
    return ""
