"""`holdfast bench conn`: the clients connect, and stay for a while."""

import asyncio
from typing import final

from holdfast.cli.bench.load import Load

__all__ = ["Connecting"]


@final
class Connecting:
    """Nothing but connections, which ``Load`` measures."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s

    async def work(self, _: Load) -> None:
        """Stay connected."""
        await asyncio.sleep(self._hold_s)

    def figures(self) -> dict[str, object]:
        """For JSON: nothing more."""
        return {}

    def text(self) -> list[tuple[str, str]]:
        """For people: nothing more."""
        return []
