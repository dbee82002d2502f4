"""Keys from a URL: fetched on a thread of their own, kept while the URL fails, fetched again.

Whoever serves the keys is trusted to name them, and not trusted to answer: each fetch has a time,
a size and no redirects.
"""

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

from holdfast.auth.fetching import FetchFailed, fetch
from holdfast.auth.token_keys import KeySet, jwks_keys
from holdfast.errors import ConfigError
from holdfast.logs import get_logger

ANSWER_BYTES_MAX: Final = 512 * 1024
WAIT_S_MAX: Final = 2.0  # of a login for keys that are being fetched

_log = get_logger(__name__)


@final
class KeyUrl:
    """The keys that a URL gives at the moment; ``keys`` is read from any thread.

    They are fetched every ``refresh_s``, and sooner when a token names a key that is not among
    them, but not within ``retry_s`` of the attempt before.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        refresh_s: float,
        retry_s: float,
        ca_file: Path | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._host = urlsplit(url).hostname or ""
        self._timeout_s = timeout_s
        self._refresh_s = refresh_s
        self._retry_s = retry_s
        self._clock_s = clock_s
        self._ca_file = ca_file
        self._context: ssl.SSLContext | None = None
        self._state = threading.Condition()
        self._keys = KeySet()
        self._version = 0  # counts the changes of the keys
        self._attempts = 0
        self._attempted_s = 0.0
        self._is_wanted = False
        self._is_fetching = False
        self._is_closed = False
        self._has_failed = False
        self._thread: threading.Thread | None = None

    @property
    def keys(self) -> KeySet:
        """The keys as they were fetched last; none before that."""
        return self._keys

    @property
    def version(self) -> int:
        """Another number whenever the keys are others."""
        return self._version

    @property
    def has_any(self) -> bool:
        """Whether the keys could be fetched at all so far."""
        return self._version > 0

    def start(self) -> None:
        """Begin to fetch, now; if it has begun, fetch anew.

        Raises ConfigError if the file of certificates cannot be used.
        """
        context = self._trust()
        with self._state:
            self._context = context
            self._is_wanted = True
            self._state.notify_all()
            if self._thread is None and not self._is_closed:
                # A daemon: a server that never answers cannot keep the process from ending.
                self._thread = threading.Thread(
                    target=self._work, name="holdfast-keys", daemon=True
                )
                self._is_fetching = True
                self._thread.start()

    def _trust(self) -> ssl.SSLContext | None:
        if not self._url.startswith("https:"):
            return None
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise ConfigError(
                f"{self._ca_file}: expected certificates in PEM: {error.strerror or error}"
            ) from None

    def close(self) -> None:
        """Fetch nothing more, without waiting for what is under way."""
        with self._state:
            self._is_closed = True
            self._state.notify_all()

    def missed(self) -> None:
        """A token is signed with a key that is not there: wait for a fetch, if one may help.

        It does not help if the keys were asked for a moment ago: whoever invents names of keys
        causes one fetch per ``retry_s`` and is not waited for.
        """
        with self._state:
            if not self._is_fetching:
                if self._clock_s() - self._attempted_s < self._retry_s:
                    return
                self._is_wanted = True
                self._is_fetching = True
                self._state.notify_all()
            attempts = self._attempts
            self._state.wait_for(
                lambda: self._attempts != attempts or self._is_closed,
                min(WAIT_S_MAX, self._timeout_s),
            )

    def _work(self) -> None:
        while True:
            with self._state:
                if self._is_closed:
                    return
                self._is_wanted = False
                self._is_fetching = True
                self._attempted_s = self._clock_s()
            self._attempt()
            with self._state:
                self._attempts += 1
                self._is_fetching = False
                self._state.notify_all()
                pause_s = self._retry_s if self._has_failed else self._refresh_s
                self._state.wait_for(lambda: self._is_wanted or self._is_closed, pause_s)

    def _attempt(self) -> None:
        """Fetch once. One line tells of the first failure in a row, one of its end."""
        try:
            keys = KeySet(jwks_keys(self._fetch(), allows_secrets=False))
        except (FetchFailed, ConfigError) as error:
            if not self._has_failed:
                _log.error(
                    "the keys of tokens cannot be fetched, those that are known stay",
                    host=self._host,
                    keys=len(self._keys.keys),
                    error=str(error),
                )
            self._has_failed = True
            return
        # What a library of others may raise: the keys stay, and the thread goes on.
        except Exception as error:
            if not self._has_failed:
                _log.failure("the keys of tokens cannot be fetched", error, host=self._host)
            self._has_failed = True
            return
        if self._has_failed:
            self._has_failed = False
            _log.info("the keys of tokens can be fetched again", host=self._host)
        if _described(keys) != _described(self._keys):
            self._keys = keys
            self._version += 1
            _log.info("the keys of tokens have changed", host=self._host, keys=len(keys.keys))

    def _fetch(self) -> bytes:
        return fetch(
            self._url,
            timeout_s=self._timeout_s,
            bytes_max=ANSWER_BYTES_MAX,
            context=self._context,
            accept="application/jwk-set+json, application/json",
        )


def _described(keys: KeySet) -> frozenset[tuple[str | None, str, frozenset[str]]]:
    return frozenset((key.kid, key.mark, key.algorithms) for key in keys.keys)
