"""The certificates of the listeners: a part that is read anew when its files change."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from holdfast.config import Settings
from holdfast.config.listeners import TlsSettings

if TYPE_CHECKING:
    from holdfast.net.tls import CertificateKey, TlsContexts


@final
class Certificates:
    """The certificates of one listener, which can be read anew while it is open.

    ``name`` is what the log calls them, ``setting`` what messages call the table.
    """

    def __init__(self, settings: TlsSettings, *, name: str, setting: str) -> None:
        self.settings: Final = settings
        self.name: Final = name
        self._setting = setting
        self._contexts: TlsContexts | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that they are read from."""
        return self.settings.files

    @property
    def context(self) -> ssl.SSLContext:
        """What a new connection uses."""
        assert self._contexts is not None, "the certificates have not been read yet"
        return self._contexts.default

    @property
    def revoked(self) -> "frozenset[CertificateKey]":
        """The certificates of clients that are revoked."""
        assert self._contexts is not None, "the certificates have not been read yet"
        return self._contexts.revoked

    def reload(self) -> None:
        """Read and check all of them; from any thread.

        New connections use them from then on; those that are there stay as they are. Raises
        ConfigError if anything is wrong with them, and changes nothing.
        """
        # Here and not above: who listens without TLS should not wait for its libraries.
        from holdfast.net.tls import TlsContexts

        self._contexts = TlsContexts(self.settings, self._setting)


def certificates_of(settings: Settings) -> dict[str, Certificates]:
    """Those of the listeners that have TLS, by title; they have not been read yet."""
    return {
        listener.title: Certificates(
            listener.tls,
            name=f"certificates of {listener.title}",
            setting=f"listeners[{index}].tls",
        )
        for index, listener in enumerate(settings.listeners)
        if listener.tls is not None
    }
