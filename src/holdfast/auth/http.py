"""Clients that an HTTP server knows: each login is a POST of JSON, and so is the answer.

``docs/guides/http-authentication.md`` has the format of both.
"""

import json
import math
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse
from urllib3.util import Timeout, parse_url

from holdfast.auth.fetching import Ending
from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.auth.secret_cache import SecretCache
from holdfast.broker.authentication import AuthRequest, grant, refuse
from holdfast.broker.identity import Identity
from holdfast.config.values import is_own_host
from holdfast.errors import AuthenticatorUnavailable, ConfigError
from holdfast.logs import get_logger
from holdfast.protocol.reason_codes import BAD_USER_NAME_OR_PASSWORD

ANSWER_BYTES_MAX: Final = 65_536
TEXT_CHARACTERS_MAX: Final = 1024  # of each text in an answer
TEXTS_MAX: Final = 256  # attributes, and roles, of one client
HEADERS_BYTES_MAX: Final = 65_536  # of the file of headers
# After so many failures in a row the server is left alone for a while, and nobody waits for it.
FAILURES_MAX: Final = 3
PAUSE_S: Final = 1.0
COMPLAINT_INTERVAL_S: Final = 10.0  # between two lines about a server in trouble

OnError = Literal["unavailable", "deny", "ignore"]

_VERSIONS: Final = {3: "3.1", 4: "3.1.1", 5: "5.0"}

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How the server is asked; see the settings of the same names."""

    url: str
    timeout_s: float = 5.0
    connections_max: int = 8
    cache_s: float = 300.0
    on_error: OnError = "unavailable"
    headers_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Allowed:
    """What the server has said of a client that it allows."""

    user_name: str | None
    attributes: dict[str, str]
    roles: tuple[str, ...]
    expires_at_ms: int

    def identity(self) -> Identity:
        return Identity(
            self.user_name,
            attributes=dict(self.attributes),
            roles=self.roles,
            expires_at_ms=self.expires_at_ms,
        )


@final
class HttpLink(Link):
    """Asks an HTTP server about clients that say who they are."""

    def __init__(
        self,
        name: str,
        options: HttpOptions,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name)
        self._options = options
        self._clock_s = clock_s
        self._now_s = now_s
        self._url = parse_url(options.url)
        self._headers: dict[str, str] = {}
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._allowed: SecretCache[_Allowed] = SecretCache(seconds=options.cache_s, clock_s=clock_s)
        self._lock = threading.Lock()
        self._failures = 0  # in a row
        self._paused_until_s = -math.inf
        self._complained_at_s = -math.inf
        if self._url.scheme != "https" and not is_own_host((self._url.host or "").strip("[]")):
            _log.warning(f"{name}: passwords are sent unencrypted to {self._server}")

    @property
    def threads(self) -> int:
        """One for each connection to the server."""
        return self._options.connections_max

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of headers and of certificates."""
        return tuple(
            file for file in (self._options.headers_file, self._options.ca_file) if file is not None
        )

    def reload(self) -> None:
        """Read the files, and forget what the server has allowed."""
        headers = _headers(self._options.headers_file)
        pool = self._new_pool()
        before, self._pool, self._headers = self._pool, pool, headers
        if before is not None:
            before.close()
        self._allowed.clear()

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.close()

    def step(self, request: AuthRequest) -> Answer:
        """Ask the server, if it has not allowed the same before."""
        if request.method is not None or _is_anonymous(request):
            return NOT_MINE
        digest = self._digest(request)
        allowed = self._allowed.get(digest)
        if allowed is None or 0 < allowed.expires_at_ms <= self._now_s() * 1000:
            try:
                answer = self._ask(request)
            except AuthenticatorUnavailable as error:
                return self._in_trouble(error)
            if not isinstance(answer, _Allowed):
                return answer
            allowed = answer
            self._allowed.put(digest, allowed)
        return grant(identity=allowed.identity())

    def _digest(self, request: AuthRequest) -> bytes:
        certificate = request.certificate
        parts = (
            request.client_id,
            "" if request.user_name is None else "+" + request.user_name,
            request.address.rpartition(":")[0],
            request.listener,
            "" if certificate is None else certificate.fingerprint,
        )
        password = b"" if request.password is None else b"+" + request.password
        return self._allowed.digest(password, *(part.encode() for part in parts))

    def _in_trouble(self, error: AuthenticatorUnavailable) -> Answer:
        if self._options.on_error == "unavailable":
            raise error
        now_s = self._clock_s()
        if now_s - self._complained_at_s >= COMPLAINT_INTERVAL_S:
            self._complained_at_s = now_s
            _log.error(f"{self.name}: {error}")
        if self._options.on_error == "ignore":
            return NOT_MINE
        return refuse(BAD_USER_NAME_OR_PASSWORD, detail=f"{self.name}: {error}")

    # --- the server

    def _new_pool(self) -> urllib3.HTTPConnectionPool:
        options, url = self._options, self._url
        timeout = Timeout(total=options.timeout_s)
        host = url.host or ""
        if url.scheme != "https":
            return _PlainPool(
                host, url.port, timeout=timeout, maxsize=options.connections_max, block=True
            )
        try:
            context = ssl.create_default_context(cafile=options.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{options.ca_file}: expected certificates in PEM: {error.strerror or error}"
            ) from None
        return _TlsPool(
            host,
            url.port,
            timeout=timeout,
            maxsize=options.connections_max,
            block=True,
            ssl_context=context,
        )

    def _ask(self, request: AuthRequest) -> "_Allowed | Answer":
        if self._clock_s() < self._paused_until_s:
            raise AuthenticatorUnavailable(f"{self._server} does not answer")
        question = _question(request)
        try:
            try:
                status, content = self._post(question)
            except urllib3.exceptions.ProtocolError:
                # It may have closed the connection, which was idle, at this very moment.
                status, content = self._post(question)
        except _TooLong:
            raise AuthenticatorUnavailable(
                f"the answer of {self._server}: expected at most {ANSWER_BYTES_MAX} bytes"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._failed()
            # The message of the error may have the whole URL, and so a secret of the operator.
            raise AuthenticatorUnavailable(
                f"{self._server} does not answer ({type(error).__name__})"
            ) from None
        with self._lock:
            self._failures = 0
        if status != 200:
            raise AuthenticatorUnavailable(f"{self._server} answers {status}, expected 200")
        try:
            return _answer(content, request.user_name)
        except (ValueError, RecursionError) as error:
            what = str(error) if isinstance(error, _Unexpected) else "expected JSON"
            raise AuthenticatorUnavailable(f"the answer of {self._server}: {what}") from None

    def _post(self, question: bytes) -> tuple[int, bytes]:
        until_s = time.monotonic() + self._options.timeout_s
        try:
            answer = self._exchange(question, until_s)
        except urllib3.exceptions.ProtocolError:
            if time.monotonic() < until_s:
                raise
            raise urllib3.exceptions.TimeoutError from None  # It is we who have cut it.
        if time.monotonic() >= until_s:
            raise urllib3.exceptions.TimeoutError  # It may be a part, which ends well.
        return answer

    def _exchange(self, question: bytes, until_s: float) -> tuple[int, bytes]:
        pool = self._pool
        assert pool is not None
        response = pool.urlopen(
            "POST",
            self._url.request_uri,
            body=question,
            headers={"Content-Type": "application/json", "Accept": "application/json"}
            | self._headers,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        connection = response.connection
        assert isinstance(connection, _PlainConnection | _TlsConnection)
        content = b""
        try:
            while data := response.read1(ANSWER_BYTES_MAX + 1):
                content += data
                if len(content) > ANSWER_BYTES_MAX:
                    raise _TooLong
                if time.monotonic() > until_s:
                    raise urllib3.exceptions.TimeoutError
        except BaseException:
            response.close()
            raise
        finally:
            connection.ending.cancel()
            response.release_conn()  # else the pool would have one place less for ever
        return response.status, content

    def _failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                self._paused_until_s = self._clock_s() + PAUSE_S

    @property
    def _server(self) -> str:
        return f"{self._url.scheme}://{self._url.netloc}"


class _PlainConnection(HTTPConnection):
    """Ends when the time of an answer is over: its timeout is for each byte of it."""

    ending: Ending

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
        """The answer without its content, behind which ``ending`` is to be cancelled."""
        self.ending = _ending(self)
        try:
            return super().getresponse()
        except BaseException:
            self.ending.cancel()
            raise


class _TlsConnection(HTTPSConnection):
    """Likewise, with TLS."""

    ending: Ending

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3
        """As of ``_PlainConnection``."""
        self.ending = _ending(self)
        try:
            return super().getresponse()
        except BaseException:
            self.ending.cancel()
            raise


def _ending(connection: HTTPConnection) -> Ending:
    assert connection.sock is not None
    assert isinstance(connection.timeout, float | int)  # what is left of all of it
    return Ending(connection.sock, time.monotonic() + connection.timeout)


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _TooLong(Exception):
    """The answer of the server is."""


class _Unexpected(ValueError):
    """What is wrong with an answer, in words that show nothing of it."""


def _is_anonymous(request: AuthRequest) -> bool:
    return request.user_name is None and request.password is None and request.certificate is None


def _question(request: AuthRequest) -> bytes:
    """The body of the POST."""
    certificate = request.certificate
    question: dict[str, object] = {
        "client_id": request.client_id,
        "user_name": request.user_name,
        "password": None,
        "address": request.address,
        "listener": request.listener,
        "version": _VERSIONS.get(request.version, ""),
        "certificate": None,
    }
    if request.password is not None:
        try:
            question["password"] = request.password.decode()
        except UnicodeDecodeError:
            question["password_base64"] = b64encode(request.password).decode()
    if certificate is not None:
        question["certificate"] = {
            "identity": certificate.identity,
            "common_name": certificate.common_name,
            "dns_names": certificate.dns_names,
            "email_addresses": certificate.email_addresses,
            "uris": certificate.uris,
            "fingerprint": certificate.fingerprint,
        }
    return json.dumps(question).encode()


def _answer(content: bytes, user_name: str | None) -> "_Allowed | Answer":
    """What an answer says. Raises ValueError for one that cannot be understood."""
    answer = json.loads(content)
    if not isinstance(answer, dict):
        raise _Unexpected("expected a JSON object")
    match answer.get("result"):
        case "ignore":
            return NOT_MINE
        case "deny":
            return refuse(BAD_USER_NAME_OR_PASSWORD, detail="the HTTP server denies it")
        case "allow":
            return _Allowed(
                _text(answer.get("user_name", user_name), "user_name"),
                _attributes(answer.get("attributes", {})),
                _roles(answer.get("roles", [])),
                _expires_at_ms(answer.get("expires_at")),
            )
    raise _Unexpected('expected "result": "allow", "deny" or "ignore"')


def _text(value: object, key: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > TEXT_CHARACTERS_MAX:
        raise _Unexpected(f"expected a text of at most {TEXT_CHARACTERS_MAX} characters in {key}")
    return value


def _attributes(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > TEXTS_MAX:
        raise _Unexpected(f"expected an object of at most {TEXTS_MAX} texts in attributes")
    return {name: _text(text, "attributes") or "" for name, text in value.items()}


def _roles(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > TEXTS_MAX:
        raise _Unexpected(f"expected a list of at most {TEXTS_MAX} texts in roles")
    return tuple(_text(role, "roles") or "" for role in value)


def _expires_at_ms(value: object) -> int:
    if value is None:
        return 0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isinstance(value, int | float) or not 0 < value < 1e11:
        raise _Unexpected("expected seconds of Unix time in expires_at")
    return max(1, int(value * 1000))


def _headers(file: Path | None) -> dict[str, str]:
    """The headers of a file, one a line. Errors show none of it."""
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            content = opened.read(HEADERS_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    if len(content) > HEADERS_BYTES_MAX:
        raise ConfigError(f"{file}: expected at most {HEADERS_BYTES_MAX} bytes")
    headers: dict[str, str] = {}
    for number, raw in enumerate(content.split(b"\n"), 1):
        line = raw.decode("latin-1").strip()
        if line == "" or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        is_token = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not colon or not is_token or not all(" " <= c != "\x7f" for c in value.strip()):
            raise ConfigError(f"{file}, line {number}: expected NAME: VALUE")
        headers[name] = value.strip()
    return headers
