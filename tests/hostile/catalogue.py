"""All attacks."""

from typing import Final

from tests.hostile import connections, contents, floods, topics
from tests.hostile.scene import Attack

ATTACKS: Final[tuple[Attack, ...]] = (
    *connections.ATTACKS,
    *contents.ATTACKS,
    *floods.ATTACKS,
    *topics.ATTACKS,
)
