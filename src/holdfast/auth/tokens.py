"""JSON Web Tokens: a client shows one as its password, or with an Authentication Method.

A token is verified here, without a question to whoever has issued it. What it says becomes the
client's identity, until it ends. Source: RFC 7515, RFC 7519; RFC 8725 for what is refused.
"""

import hashlib
import re
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from holdfast.auth.key_url import KeyUrl
from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.auth.strict_json import JsonObject, read_json
from holdfast.auth.token_claims import Claims, TokenRefused, checked_claims
from holdfast.auth.token_keys import (
    KID_CHARACTERS_MAX,
    Key,
    KeySet,
    is_signed,
    jwks_keys,
    pem_keys,
    secret_key,
)
from holdfast.broker.authentication import AuthRequest, grant, refuse
from holdfast.broker.identity import Identity
from holdfast.config.authenticators import JwtSettings
from holdfast.errors import ConfigError
from holdfast.protocol.reason_codes import (
    BAD_USER_NAME_OR_PASSWORD,
    NOT_AUTHORIZED,
    SERVER_UNAVAILABLE,
)

FILE_BYTES_MAX: Final = 1024 * 1024  # of keys
URL_THREADS: Final = 4  # of a link that may wait for keys
# Tokens that were verified, so that a storm of reconnects costs a digest each. An entry is of a
# few kilobytes at most, and only a valid token makes one.
CACHED_TOKENS_MAX: Final = 16_384
CACHED_BYTES_MAX: Final = 16 * 1024 * 1024  # of tokens that the entries are of

# Three parts, the first of which begins as an object does. What else a password may be is not ours.
_TOKEN: Final = re.compile(rb"e[wxyz][A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
_BEARER: Final = re.compile(rb"\Abearer +", re.IGNORECASE)


@final
class _Verified:
    """A token that is signed with ``key``; its times are looked at each time."""

    def __init__(self, claims: Claims, key: Key, size: int) -> None:
        self.claims = claims
        self.key = key
        self.size = size


@final
class TokenLink(Link):
    """Judges tokens; ``clock_s`` gives Unix time in seconds."""

    def __init__(self, settings: JwtSettings, clock_s: Callable[[], float] = time.time) -> None:
        super().__init__(settings.name)
        self._settings = settings
        self._clock_s = clock_s
        self._algorithms = frozenset[str](settings.algorithms)
        self._file_keys: list[Key] = []
        self._url: KeyUrl | None = None
        if settings.jwks_url is not None:
            self._url = KeyUrl(
                settings.jwks_url,
                timeout_s=settings.jwks_timeout_s,
                refresh_s=settings.jwks_refresh_s,
                retry_s=settings.jwks_retry_s,
                ca_file=settings.jwks_ca_file,
            )
        self._keys = KeySet()
        self._keys_version = 0  # of those of the URL that are in ``_keys``
        self._reported_version = 0
        self._lock = threading.Lock()  # of the cache and the keys, across threads
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()
        self._cached_bytes = 0

    @property
    def methods(self) -> frozenset[str]:
        """Those that the settings name."""
        return frozenset(self._settings.methods)

    @property
    def threads(self) -> int:
        """Some of its own where it may have to wait for keys."""
        return 0 if self._url is None else URL_THREADS

    @property
    def files(self) -> tuple[Path, ...]:
        """The files with keys, and the one with certificates for the URL."""
        settings = self._settings
        ca_file = None if self._url is None else settings.jwks_ca_file
        return (*self._key_files, *(() if ca_file is None else (ca_file,)))

    @property
    def _key_files(self) -> tuple[Path, ...]:
        settings = self._settings
        files = (settings.secret_file, settings.public_key_file, settings.jwks_file)
        return tuple(file for file in files if file is not None)

    def reload(self) -> None:
        """Read the files anew, and ask the URL."""
        keys = self._read_files()
        if keys and not any(key.algorithms & self._algorithms for key in keys):
            names = ", ".join(self._settings.algorithms)
            raise ConfigError(f"{self.name}: expected a key for one of {names}, there is none")
        if self._url is not None:
            self._url.start()
        with self._lock:
            self._file_keys = keys
            self._merge()

    def has_news(self) -> bool:
        """Whether the keys of the URL are others than at the last such question."""
        if self._url is None or self._url.version == self._reported_version:
            return False
        self._reported_version = self._url.version
        return True

    def close(self) -> None:
        """Fetch nothing more."""
        if self._url is not None:
            self._url.close()

    def step(self, request: AuthRequest) -> Answer:
        """Grant who shows a token that holds; what is no token, or of another issuer, is not ours.

        An error says what is wrong with a token in general, never what is in it.
        """
        if request.method is None:
            code, token = BAD_USER_NAME_OR_PASSWORD, request.password
            if token is None or not self._settings.as_password or not _TOKEN.fullmatch(token):
                return NOT_MINE
        elif request.method in self.methods:
            code, token = NOT_AUTHORIZED, _BEARER.sub(b"", request.data or b"", count=1)
        else:
            return NOT_MINE
        try:
            return self._judge(request, token)
        except TokenRefused as error:
            return refuse(code if error.reason_code == 0 else error.reason_code, error.reason)

    def renew(self, request: AuthRequest, identity: Identity) -> Answer:
        """A client stays while the key of its token does."""
        if identity.mark not in self._current_keys().marks:
            return refuse(NOT_AUTHORIZED, "the key of the token has been withdrawn")
        return grant(identity=identity)

    def _judge(self, request: AuthRequest, token: bytes) -> Answer:
        if len(token) > self._settings.token_bytes_max:
            raise TokenRefused("the token is too long")
        digest = hashlib.sha256(token).digest()
        verified = self._cached(digest)
        if verified is None:
            found = self._verify(token)
            if found is None:
                return NOT_MINE
            verified = found
        claims = verified.claims
        claims.check_times(self._clock_s(), self._settings.leeway_s)
        self._check_names(request, claims)
        self._remember(digest, verified)
        return grant(identity=claims.identity(verified.key.mark, self._settings.leeway_s))

    def _check_names(self, request: AuthRequest, claims: Claims) -> None:
        if claims.client_id is not None and claims.client_id != request.client_id:
            raise TokenRefused("the token is for another client identifier")
        is_checked = self._settings.other_user_name == "refuse"
        if is_checked and request.user_name not in (None, claims.user_name):
            raise TokenRefused("the token is for another user name")

    def _verify(self, token: bytes) -> _Verified | None:
        """The token, verified but for its times; None if another issuer has made it."""
        if not _TOKEN.fullmatch(token):
            raise TokenRefused("expected a signed JSON Web Token")
        header_part, claims_part, signature_part = token.split(b".")
        header = _object(header_part)
        algorithm, kid = self._checked_header(header)
        content = _object(claims_part)
        issuers = self._settings.issuers
        # Not verified yet: it only says whose it is.
        if issuers and content.get("iss") not in issuers:
            return None
        signed = token[: len(header_part) + 1 + len(claims_part)]
        key = self._signer(algorithm, kid, signed, _decoded(signature_part))
        return _Verified(checked_claims(content, self._settings), key, len(token))

    def _checked_header(self, header: JsonObject) -> tuple[str, str | None]:
        """The algorithm and the name of the key. Keys and URLs in a header are never looked at."""
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise TokenRefused("the algorithm of the token is not allowed")
        # Extensions that we would have to understand, and do not. Source: RFC 7515 §4.1.11.
        if not header.keys().isdisjoint({"crit", "b64", "zip", "enc"}):
            raise TokenRefused("the token needs an extension that is not supported")
        kid = header.get("kid")
        if kid is None:
            return algorithm, None
        if not isinstance(kid, str) or not 1 <= len(kid) <= KID_CHARACTERS_MAX:
            raise TokenRefused("the token names its key in no usable way")
        return algorithm, kid

    def _signer(self, algorithm: str, kid: str | None, signed: bytes, signature: bytes) -> Key:
        """The key that the token is signed with."""
        keys = self._current_keys()
        if self._url is not None and not (
            keys.has_name(kid) if kid is not None else keys.candidates(algorithm, None)
        ):
            self._url.missed()
            keys = self._current_keys()
        for key in keys.candidates(algorithm, kid):
            if is_signed(key, algorithm, signed, signature):
                return key
        if self._url is not None and not self._url.has_any and not self._file_keys:
            raise TokenRefused("the keys of tokens are not there yet", SERVER_UNAVAILABLE)
        raise TokenRefused("the token is not signed with a key that is known")

    # --- keys

    def _current_keys(self) -> KeySet:
        if self._url is not None and self._url.version != self._keys_version:
            with self._lock:
                self._merge()
        return self._keys

    def _merge(self) -> None:
        """Put the keys together, and forget what was verified with those before."""
        url_keys: tuple[Key, ...] = ()
        if self._url is not None:
            # The version first: what comes in between is merged the next time.
            self._keys_version = self._url.version
            url_keys = self._url.keys.keys
        self._keys = KeySet([*self._file_keys, *url_keys])
        self._cache.clear()
        self._cached_bytes = 0

    def _read_files(self) -> list[Key]:
        settings = self._settings
        keys: list[Key] = []
        for file in self._key_files:
            try:
                content = _read(file)
                if file == settings.secret_file:
                    keys.append(secret_key(content, self._algorithms))
                elif file == settings.public_key_file:
                    keys += pem_keys(content)
                else:
                    keys += jwks_keys(content, allows_secrets=True)
            except ConfigError as error:
                raise ConfigError(f"{file}: {error}") from None
        return keys

    # --- what was verified before

    def _cached(self, digest: bytes) -> _Verified | None:
        keys = self._current_keys()
        with self._lock:
            found = self._cache.get(digest)
            if found is not None:
                self._cache.move_to_end(digest)
        return found if found is not None and found.key.mark in keys.marks else None

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        with self._lock:
            if digest in self._cache or verified.key.mark not in self._keys.marks:
                return
            self._cache[digest] = verified
            self._cached_bytes += verified.size
            while len(self._cache) > CACHED_TOKENS_MAX or self._cached_bytes > CACHED_BYTES_MAX:
                _, oldest = self._cache.popitem(last=False)
                self._cached_bytes -= oldest.size


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"expected at most {FILE_BYTES_MAX} bytes")
    return content


def _object(part: bytes) -> JsonObject:
    try:
        return read_json(_decoded(part))
    except ValueError:
        raise TokenRefused("expected a signed JSON Web Token") from None


def _decoded(part: bytes) -> bytes:
    """The bytes of a part in base64url, which is written in one way alone."""
    try:
        decoded = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise TokenRefused("expected a signed JSON Web Token") from None
    if urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise TokenRefused("expected a signed JSON Web Token")
    return decoded
