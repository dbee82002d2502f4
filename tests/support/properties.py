"""Property sets for tests, by the names of ``holdfast.message.Properties``."""

from holdfast.message import Properties


def properties(**values: object) -> Properties:
    """A property set with these values, each named as in ``Properties``."""
    found = Properties()
    for name, value in values.items():
        assert hasattr(found, name), name
        setattr(found, name, value)
    return found


def expiring(seconds: int) -> Properties:
    """A property set with a Message Expiry Interval alone."""
    return properties(message_expiry_interval=seconds)
