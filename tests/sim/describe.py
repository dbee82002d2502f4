"""A packet of either side as a line of a trace."""

from holdfast.protocol.packets import (
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Unsubscribe,
)
from tests.broker.world import describe


def describe_any(packet: Packet) -> str:
    if isinstance(packet, Connect):
        return _describe_connect(packet)
    if isinstance(packet, Subscribe):
        filters = " ".join(
            f"{request.topic_filter} q{request.qos}"
            f"{' no-local' * request.no_local}{' as-published' * request.retain_as_published}"
            for request in packet.requests
        )
        return f"SUBSCRIBE #{packet.packet_id} {filters}"
    if isinstance(packet, Unsubscribe):
        return f"UNSUBSCRIBE #{packet.packet_id} {' '.join(packet.topic_filters)}"
    if isinstance(packet, Pingreq):
        return "PINGREQ"
    text = describe(packet)
    if isinstance(packet, Publish):
        size = f"({len(packet.payload)} bytes)"
        text = text.replace(size, f"{packet.payload.split(b' ')[0].decode()} {size}")
    properties = packet.properties if isinstance(packet, Publish | Disconnect) else None
    if properties is not None:
        if properties.message_expiry_interval is not None:
            text += f" expires in {properties.message_expiry_interval} s"
        if properties.subscription_identifiers:
            text += f" for {properties.subscription_identifiers}"
        if properties.session_expiry_interval is not None:
            text += f" session expiry {properties.session_expiry_interval} s"
    return text


def _describe_connect(packet: Connect) -> str:
    parts = [f"CONNECT v{packet.version}"]
    if packet.clean_start:
        parts.append("clean")
    if packet.keep_alive:
        parts.append(f"keep alive {packet.keep_alive} s")
    properties = packet.properties
    if properties is not None:
        for name in ("session_expiry_interval", "receive_maximum", "maximum_packet_size"):
            value = getattr(properties, name)
            if value is not None:
                parts.append(f"{name.replace('_', ' ')} {value}")
    if packet.will is not None:
        will = packet.will
        parts.append(
            f"will {will.payload.split(b' ')[0].decode()} q{will.qos}{' retain' * will.retain}"
        )
        if will.properties is not None:
            parts.append(f"after {will.properties.will_delay_interval} s")
    return " ".join(parts)
