"""All attacks."""

from typing import Final

from tests.hostile import connections, contents, entrances, floods, topics
from tests.hostile.scene import Attack

ATTACKS: Final[tuple[Attack, ...]] = (
    *connections.ATTACKS,
    *contents.ATTACKS,
    *entrances.ATTACKS,
    *floods.ATTACKS,
    *topics.ATTACKS,
)
