"""All attacks."""

from typing import Final

from tests.hostile import connections, floods
from tests.hostile.scene import Attack

ATTACKS: Final[tuple[Attack, ...]] = (*connections.ATTACKS, *floods.ATTACKS)
