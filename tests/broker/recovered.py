"""What a crash has left on the disk, and what the broker makes of it."""

from tests.broker.holdings import Recovered, StoredWill, Subscribed
from tests.broker.model_store import ModelStore
from tests.broker.world import World


def stored(world: World) -> tuple[dict[str, str], dict[str, StoredWill]]:
    """The retained messages by topic and the wills by client identifier, on the disk."""
    store = world.disk.store
    assert isinstance(store, ModelStore)
    retained = {topic: message.payload.decode() for topic, message in store.retained.items()}
    wills: dict[str, StoredWill] = {}
    for row in store.sessions.values():
        key = row.will.payload.decode() if row.will is not None else ""
        wills[row.client_id] = StoredWill(
            row.number, key, row.expiry_s, row.disconnected_at_ms, row.will_due_ms
        )
    return retained, wills


def recovered(world: World) -> dict[str, Recovered]:
    """The sessions that the broker has, by client identifier."""
    found: dict[str, Recovered] = {}
    for session in world.broker.sessions._by_client_id.values():
        subscriptions = {
            topic_filter: Subscribed(
                subscription.qos,
                subscription.is_no_local,
                (subscription.identifiers or [0])[0],
                subscription.is_retain_as_published,
            )
            for topic_filter, subscription in session.subscriptions.items()
        }
        found[session.client_id] = Recovered(
            session.number, session.expiry_s, session.disconnected_at_ms, subscriptions
        )
    return found


def recovered_retained(world: World) -> dict[str, str]:
    """The retained messages that the broker has and that have not expired, by topic."""
    return {
        message.topic: message.payload.decode()
        for topic_filter in ("#", "$s/#")
        for message in world.broker._router.retained.matching(topic_filter)
        if not 0 < message.expires_at_ms <= world.now_ms
    }
