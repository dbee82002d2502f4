"""A memory of what has been verified, from which no password can be read."""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar, final

V = TypeVar("V")

KEY_BYTES: Final = 32
ENTRIES_MAX: Final = 100_000  # some 25 MB; the oldest goes first


@final
class SecretCache(Generic[V]):
    """Values by secrets, each for a time, and only so many; from any thread.

    It has not the secrets but their keyed BLAKE2 digests, under a key that this process has made up
    and nobody else knows. Put nothing in that anybody may cause who does not know a secret.
    """

    def __init__(
        self,
        *,
        seconds: float,
        entries_max: int = ENTRIES_MAX,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._entries_max = entries_max
        self._clock_s = clock_s
        self._key = secrets.token_bytes(KEY_BYTES)
        self._lock = threading.Lock()
        # By digest: the value, and when its time is over. The oldest first, which ends first.
        self._entries: dict[bytes, tuple[V, float]] = {}

    def digest(self, *parts: bytes) -> bytes:
        """The name of an entry for these, of which some are secret."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in parts:
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        return digest.digest()

    def get(self, digest: bytes) -> V | None:
        """What was put in under this name, if its time is not over."""
        with self._lock:
            found = self._entries.get(digest)
            if found is None:
                return None
            value, until_s = found
            if until_s <= self._clock_s():
                del self._entries[digest]
                return None
            return value

    def put(self, digest: bytes, value: V) -> None:
        """Keep a value; the time of one that is there begins anew."""
        if self._seconds <= 0:
            return
        with self._lock:
            now_s = self._clock_s()
            self._entries.pop(digest, None)
            while self._entries:
                oldest = next(iter(self._entries))
                if len(self._entries) < self._entries_max and self._entries[oldest][1] > now_s:
                    break
                del self._entries[oldest]
            self._entries[digest] = (value, now_s + self._seconds)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
