"""Changes that a crash can take back: each belongs to an operation, and operations are numbered."""

from collections import deque
from collections.abc import Callable
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Journal:
    """What has changed since the last operation that is known to be durable."""

    def __init__(self) -> None:
        self.operation = 0  # the one under way, or the last
        self._undo: deque[tuple[int, Callable[[], object]]] = deque()

    def begin(self) -> int:
        """A new operation begins: its number."""
        self.operation += 1
        return self.operation

    def put(self, target: dict[Key, Value], key: Key, value: Value) -> None:
        """``target[key] = value``."""
        if key in target:
            old = target[key]
            self.note(lambda: target.__setitem__(key, old))
        else:
            self.note(lambda: target.pop(key, None))
        target[key] = value

    def drop(self, target: dict[Key, Value], key: Key) -> None:
        """``del target[key]``."""
        old = target.pop(key)
        self.note(lambda: target.__setitem__(key, old))

    def set(self, target: object, name: str, value: object) -> None:
        """``target.name = value``."""
        old = getattr(target, name)
        if old != value:
            self.note(lambda: setattr(target, name, old))
            setattr(target, name, value)

    def note(self, undo: Callable[[], object]) -> None:
        """This would take back what is done now."""
        self._undo.append((self.operation, undo))

    def confirm(self, operation: int) -> None:
        """All up to this operation is durable."""
        undo = self._undo
        while undo and undo[0][0] <= operation:
            undo.popleft()

    def roll_back(self, operation: int) -> None:
        """Take back all that came after this operation. Numbers are not used again."""
        undo = self._undo
        while undo and undo[-1][0] > operation:
            undo.pop()[1]()
