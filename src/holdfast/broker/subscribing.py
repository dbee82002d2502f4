"""SUBSCRIBE and UNSUBSCRIBE from a client. Source: MQTT 5.0 §3.8, §3.10."""

from typing import final

from holdfast.broker.authorization import Authorization
from holdfast.broker.commits import Commits
from holdfast.broker.connection import Connection
from holdfast.broker.counters import Counters
from holdfast.broker.events import WARNING, Event
from holdfast.broker.limits import (
    ENDED_SUBSCRIPTIONS_MAX,
    RETAINED_WAITING_MAX,
    SUBSCRIBE_WORK_MAX,
    Limits,
)
from holdfast.broker.permissions import Permissions
from holdfast.broker.reasons import explained_suback, explained_unsuback
from holdfast.broker.router import Router
from holdfast.broker.session import (
    OPTION_NO_LOCAL,
    OPTION_RETAIN_AS_PUBLISHED,
    Session,
    Subscription,
)
from holdfast.errors import ProtocolError
from holdfast.message import Message
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from holdfast.protocol.reason_codes import (
    FAILURE,
    NO_SUBSCRIPTION_EXISTED,
    NOT_AUTHORIZED,
    PACKET_IDENTIFIER_IN_USE,
    QUOTA_EXCEEDED,
    SUCCESS,
    TOPIC_FILTER_INVALID,
    reason_name,
)
from holdfast.protocol.topics import check_filter, is_shared, size_fault


@final
class Subscribing:
    """Takes the SUBSCRIBE and UNSUBSCRIBE packets of all connections."""

    def __init__(
        self,
        limits: Limits,
        commits: Commits,
        router: Router,
        authorization: Authorization,
        counters: Counters,
        events: list[Event],
    ) -> None:
        self._limits = limits
        self._commits = commits
        self._router = router
        self._authorization = authorization
        self._counters = counters
        self._events = events

    def subscribe(self, connection: Connection, packet: Subscribe) -> None:
        """Carry out a SUBSCRIBE and answer it; the subscriptions are durable before SUBACK leaves.

        Raises ProtocolError for an invalid filter before 5.0, which ends the connection.
        Source: [MQTT-3.2.2-10] for a broker that does not support every QoS.
        """
        session = connection.session
        assert session is not None
        limits = self._limits
        if _is_identifier_in_use(session, connection, packet.packet_id):
            codes = [PACKET_IDENTIFIER_IN_USE] * len(packet.requests)
            connection.answer(explained_suback(connection, packet.packet_id, codes), 0)
            return
        if not connection.is_v5:
            # All of them first: where there is no SUBACK, none of the others may count.
            for request in packet.requests:
                check_filter(request.topic_filter)
        properties = packet.properties
        identifier = 0
        if properties is not None and properties.subscription_identifiers:
            identifier = properties.subscription_identifiers[0]
        codes = []
        refusals = []  # those of access rules have a line and a counter of their own
        with_retained: dict[str, list[Message]] = {}  # by topic filter: each brings them once
        waiting = session.retained_waiting
        retained_count = 0 if waiting is None else len(waiting) - session.retained_next
        work_max = self._counters.work + SUBSCRIBE_WORK_MAX
        for request in packet.requests:
            refusal = _refusal(request, session, limits)
            if refusal == SUCCESS and (
                retained_count >= RETAINED_WAITING_MAX or self._counters.work > work_max
            ):
                refusal = QUOTA_EXCEEDED
            if refusal != SUCCESS:
                refusals.append(refusal)
            if refusal == SUCCESS and connection.permissions is not None:
                refusal = self._denial(connection, connection.permissions, request.topic_filter)
            if refusal != SUCCESS:
                codes.append(refusal if connection.is_v5 else FAILURE)
                continue
            is_new = request.topic_filter not in session.subscriptions
            request.qos = min(request.qos, limits.maximum_qos)
            self._put(session, request, identifier)
            codes.append(request.qos)
            if is_shared(request.topic_filter) or not limits.is_retain_available:
                continue  # the standard has a shared one bring no retained messages: §4.8.2
            # [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
            handling = request.retain_handling
            brings_retained = handling == 0 or (handling == 1 and is_new)
            if brings_retained and request.topic_filter not in with_retained:
                messages = self._router.retained.matching(request.topic_filter)
                retained_count += len(messages)
                with_retained[request.topic_filter] = messages
        if refusals:
            self._tell_of_refusals(connection, refusals, len(packet.requests))
        wait = self._commits.filling if session.is_durable else 0
        connection.answer(explained_suback(connection, packet.packet_id, codes), wait)
        for topic_filter, messages in with_retained.items():
            self._router.send_retained(session.subscriptions[topic_filter], messages)

    def unsubscribe(self, connection: Connection, packet: Unsubscribe) -> None:
        """Carry out an UNSUBSCRIBE and answer it; the removal is durable before UNSUBACK leaves."""
        session = connection.session
        assert session is not None
        if _is_identifier_in_use(session, connection, packet.packet_id):
            codes = [PACKET_IDENTIFIER_IN_USE] * len(packet.topic_filters)
            connection.answer(explained_unsuback(connection, packet.packet_id, codes), 0)
            return
        codes = []
        for topic_filter in packet.topic_filters:
            subscription = session.subscriptions.get(topic_filter)
            if subscription is None:
                codes.append(_filter_fault(topic_filter) or NO_SUBSCRIPTION_EXISTED)
            else:
                self._take_out(session, subscription)
                codes.append(SUCCESS)
        wait = self._commits.filling if session.is_durable else 0
        if not connection.is_v5:
            codes = []
        connection.answer(encode(Unsuback(packet.packet_id, codes), connection.version), wait)

    def _tell_of_refusals(self, connection: Connection, refusals: list[int], count: int) -> None:
        """One line for a packet, with the reason of the first filter of it that was refused."""
        self._counters.refused_subscriptions += len(refusals)
        what = f"{len(refusals)} of the {count} topic filters of a SUBSCRIBE"
        text = f"refused: {what}: {reason_name(refusals[0])}"
        self._events.append(Event(WARNING, text, connection.client_id, connection.address))

    def _denial(self, connection: Connection, permissions: Permissions, topic_filter: str) -> int:
        """Not authorized for a filter that the client may not subscribe to, else SUCCESS."""
        narrows = self._limits.narrows_subscriptions
        before = permissions.work
        is_allowed = permissions.may_subscribe(topic_filter, narrows)
        self._counters.work += permissions.work - before
        if is_allowed:
            return SUCCESS
        self._counters.denied_subscriptions += 1
        self._authorization.tell_subscribe(connection, topic_filter, narrows)
        return NOT_AUTHORIZED

    def _put(self, session: Session, request: SubscriptionRequest, identifier: int) -> None:
        """Make the subscription, or let it take the place of the one to the same filter.

        A replacement counts from now on, its predecessor until now: no gap and no double
        [MQTT-3.8.4-4].
        """
        router = self._router
        commits = self._commits
        options = request.qos
        if request.no_local:
            options |= OPTION_NO_LOCAL
        if request.retain_as_published:
            options |= OPTION_RETAIN_AS_PUBLISHED
        new = Subscription(session, request.topic_filter, options, identifier, commits.next_lsn)
        old = session.subscriptions.get(request.topic_filter)
        if old is not None:
            if old.options == new.options and old.identifiers == new.identifiers:
                return
            if old.group is None:
                self._take_out(session, old)
            else:
                session.remove(old)
                if session.is_recorded:
                    commits.remove_subscription(old.record())
                    if old.qos > 0:
                        router.removal_wait = commits.filling
        if is_shared(request.topic_filter):
            router.groups.join(new, True)
            session.add(new)
        else:
            session.add(new)
            router.tree.add(new, True)
        if session.is_recorded:
            commits.put_subscription(new.record())

    def _take_out(self, session: Session, old: Subscription) -> None:
        """End a subscription; it goes on serving what is still to be read, or to be sent again."""
        router = self._router
        commits = self._commits
        session.remove(old)
        if session.is_recorded and old.qos > 0:
            router.removal_wait = commits.filling
        if old.group is not None:
            router.groups.leave(old)
            if session.is_recorded:
                commits.remove_subscription(old.record())
            return
        router.tree.remove(old, True)
        old.until_lsn = commits.next_lsn
        commits.forget_closed(session)
        # One at QoS 0 has no message to bring, but its identifier goes with those of others.
        if old.until_lsn > old.from_lsn and session.needs(old) and _may_keep(session):
            if session.closed is None:
                session.closed = []
            session.closed.append(old)
            router.note_unfiled(session)
            if session.is_recorded:
                commits.put_subscription(old.record())
        elif session.is_recorded:
            commits.remove_subscription(old.record())


def _is_identifier_in_use(session: Session, connection: Connection, packet_id: int) -> bool:
    """Whether a QoS 2 exchange of the client holds it; before 5.0 no code says so."""
    return connection.is_v5 and session.received.holds(packet_id)


def _refusal(request: SubscriptionRequest, session: Session, limits: Limits) -> int:
    """The reason code that refuses a filter, SUCCESS for one to accept."""
    topic_filter = request.topic_filter
    fault = _filter_fault(topic_filter)
    if fault != SUCCESS:
        return fault
    # A Shared Subscription has two levels that are not of its topics.
    levels_max = limits.topic_levels_max
    if levels_max > 0 and is_shared(topic_filter):
        levels_max += 2
    size = len(topic_filter.encode("utf-8")) if limits.topic_bytes_max > 0 else 0
    if size_fault(topic_filter, size, levels_max, limits.topic_bytes_max):
        return TOPIC_FILTER_INVALID
    if session.closed is not None and len(session.closed) >= ENDED_SUBSCRIPTIONS_MAX:
        return QUOTA_EXCEEDED
    if (
        0 < limits.subscriptions_max <= len(session.subscriptions)
        and request.topic_filter not in session.subscriptions
    ):
        return QUOTA_EXCEEDED
    return SUCCESS


def _filter_fault(topic_filter: str) -> int:
    """The reason code for what is no Topic Filter, SUCCESS for one."""
    try:
        check_filter(topic_filter)
    except ProtocolError as error:
        return error.reason_code
    return SUCCESS


def _may_keep(session: Session) -> bool:
    """Whether one more ended subscription may be kept.

    A session that is behind is refused new ones before it comes to too many. A live one needs
    them only to send a message again as it was, and half as many must do.
    """
    if session.is_behind or session.closed is None:
        return True
    return len(session.closed) < ENDED_SUBSCRIPTIONS_MAX // 2
