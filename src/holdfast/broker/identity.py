"""Who a client is: what its transport proves, and what an authenticator has found."""

from typing import final


@final
class PeerCertificate:
    """A client's certificate that the transport has verified; its texts as the issuer wrote them.

    ``identity`` is the one that the listener takes for the client's name, "" if it has none.
    """

    def __init__(
        self,
        identity: str,
        common_name: str = "",
        dns_names: tuple[str, ...] = (),
        email_addresses: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
        fingerprint: str = "",  # SHA-256 of the certificate, lower-case hex
    ) -> None:
        self.identity = identity
        self.common_name = common_name
        self.dns_names = dns_names
        self.email_addresses = email_addresses
        self.uris = uris
        self.fingerprint = fingerprint


@final
class Identity:
    """Who a client is, as an authenticator found; ``expires_at_ms`` is Unix time, 0 for never.

    ``source`` names the part of the authenticator that said so, and ``mark`` is what that part
    wants to find again when it is asked whether this still holds. ``rules`` are rules of access
    that come with the identity, such as those of a token; who makes the permissions knows them.
    """

    def __init__(
        self,
        user_name: str | None,
        source: str = "",
        attributes: dict[str, str] | None = None,
        roles: tuple[str, ...] = (),
        expires_at_ms: int = 0,
        mark: str = "",
        rules: tuple[object, ...] | None = None,
    ) -> None:
        self.user_name = user_name
        self.source = source
        self.attributes: dict[str, str] = {} if attributes is None else attributes
        self.roles = roles
        self.expires_at_ms = expires_at_ms
        self.mark = mark
        self.rules = rules
