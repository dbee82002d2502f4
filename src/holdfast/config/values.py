"""Values that are more than a number or a word: how they are written, and what they become."""

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeGuard
from urllib.parse import urlsplit

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

PORT_MAX: Final = 65_535
METHOD_CHARACTERS_MAX: Final = 64  # of an Authentication Method
TEXT_CHARACTERS_MAX: Final = 1024  # of a text that goes into packets
UNIX_PATH_BYTES_MAX: Final = 107  # what the system's address of a Unix socket holds
# A name as the resolver takes it: labels of 1 to 63 characters, with or without a last dot.
_HOST: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_ZONE: Final = re.compile(r"[^%]*(%[A-Za-z0-9._-]{1,15})?")  # fe80::1%eth0, of an IPv6 address
LISTEN_EXPECTED: Final = (
    "HOST:PORT, such as 127.0.0.1:1883 or [::1]:1883, port 0 for any free one, or unix:PATH"
)
ORIGIN_EXPECTED: Final = "origins, such as https://example.org or http://localhost:8080, or null"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a listener binds: a host name or address (IPv6 without brackets) and a TCP port."""

    host: str
    port: int  # 0: any free port

    @property
    def is_local(self) -> bool:
        """Whether nobody outside of this machine can reach it.

        A name is looked up, which may block, and is local if all that it stands for is. One that
        is not found is not local.
        """
        try:
            return self.finds_only_loopback()
        except OSError:
            return False

    def finds_only_loopback(self) -> bool:
        """Whether a listener would bind to loopback alone. Raises OSError if nothing is found."""
        # As the system reads it, which is what binds: 127.1, 0 and 0x7f000001 are addresses too,
        # and localhost is whatever the machine's files make of it.
        flags = socket.AI_PASSIVE
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=flags)
        return all(is_loopback(str(where[0])) for *_, where in found)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket that a listener makes: a path, absolute or from the working directory."""

    path: str

    @property
    def is_local(self) -> bool:
        """Always: the socket is a file of this machine."""
        return True

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = ListenAddress | UnixAddress


def is_loopback(host: str) -> bool:
    """Whether an IP address, not a name, is one that only this machine reaches."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def listen_addresses(value: object) -> tuple[Address, ...]:
    """Addresses from a list, or from one string with commas, which is all a variable can hold."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) == 0:
        raise Culprit(value, f"a list of {LISTEN_EXPECTED}")
    addresses = tuple(listen_address(part) for part in parts)
    fixed = [address for address in addresses if not is_any_port(address)]
    for address in fixed:
        if fixed.count(address) > 1:
            raise Culprit(str(address), "each address once")
    return addresses


def is_any_port(address: Address) -> bool:
    """Whether the system chooses the port."""
    return isinstance(address, ListenAddress) and address.port == 0


def listen_address(part: object) -> Address:
    """One address from its text."""
    if isinstance(part, ListenAddress | UnixAddress):
        return part
    if not isinstance(part, str):
        raise Culprit(part, LISTEN_EXPECTED)
    if part.startswith("unix:"):
        path = part.removeprefix("unix:")
        if path == "" or "\0" in path or len(path.encode()) > UNIX_PATH_BYTES_MAX:
            expected = f"unix: and a path of at most {UNIX_PATH_BYTES_MAX} bytes"
            raise Culprit(part, expected)
        return UnixAddress(path)
    host, colon, port = part.strip().rpartition(":")
    if colon == "" or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise Culprit(part, LISTEN_EXPECTED)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise Culprit(part, LISTEN_EXPECTED) from None
        if not _ZONE.fullmatch(host):
            raise Culprit(part, LISTEN_EXPECTED)
    elif not _HOST.fullmatch(host):
        raise Culprit(part, LISTEN_EXPECTED)
    return ListenAddress(host, int(port))


def data_dir(value: object) -> Path:
    """The folder of the store."""
    if isinstance(value, Path):
        return value
    # An empty string would silently be the working directory.
    if not isinstance(value, str) or value == "" or "\0" in value:
        raise Culprit(value, "the path of a folder")
    return Path(value)


def file_path(value: object) -> Path:
    """A file that is read, which need not be there yet."""
    if isinstance(value, Path):
        return value
    # What cannot be printed is no path, but for instance the content of a key.
    if not isinstance(value, str) or value == "" or not value.isprintable():
        raise Culprit(value, "the path of a file")
    return Path(value)


@dataclass(frozen=True, slots=True)
class ReadFile:
    """Marks the settings that name a file to read, and those whose file is a secret."""

    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class MayBeSecret:
    """Marks a setting whose value may have a password or a key in it: it is not shown."""


FilePath = Annotated[Path, PlainValidator(file_path), ReadFile()]
SecretFilePath = Annotated[Path, PlainValidator(file_path), ReadFile(is_secret=True)]


def unix_mode(value: object) -> str:
    """The permissions of a Unix socket."""
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise Culprit(value, 'permissions in octal as a text, such as "0660"')
    return value


UnixMode = Annotated[str, PlainValidator(unix_mode)]


def url_path(value: object) -> str:
    """The path of a URL."""
    if not isinstance(value, str) or not re.fullmatch(r"/[!$-;=@-Z_a-z~]*", value):
        raise Culprit(value, "the path of a URL, such as /mqtt, without ? and #")
    return value


def origins(value: object) -> tuple[str, ...]:
    """Origins as browsers send them: in small letters, without the port that is usual."""
    if not isinstance(value, list | tuple):
        raise Culprit(value, f"a list of {ORIGIN_EXPECTED}")
    return tuple(_origin(part) for part in value)


def _origin(part: object) -> str:
    # A page without an origin of its own, from a file for instance, sends "null".
    found = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]+)|null", str(part).lower())
    if not isinstance(part, str) or found is None:
        raise Culprit(part, ORIGIN_EXPECTED)
    return found[0].removesuffix({"http": ":80", "https": ":443"}.get(found[1] or "", " "))


def http_url(value: object) -> str:
    """The address of a resource of an HTTP server, without anything secret."""
    expected = "https://HOST/PATH or http://HOST/PATH, without user and password"
    if not is_text(value) or not re.fullmatch(
        r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-~]*)?", value
    ):
        raise Culprit(value, expected)
    return value


HttpUrl = Annotated[str, PlainValidator(http_url)]


def key_address(value: object) -> str:
    """The URL that public keys are fetched from."""
    expected = "an https URL without user and fragment, or an http URL of this machine"
    if not is_text(value) or not value.isascii() or " " in value:
        raise Culprit(value, expected)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise Culprit(value, expected) from None
    host = parts.hostname or ""
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_own_host(host))
    if not is_safe or not host or port == 0 or "@" in parts.netloc or parts.fragment:
        raise Culprit(value, expected)
    return value


def is_own_host(host: str) -> bool:
    """Whether the host of a URL, without brackets, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def method_name(value: object) -> str:
    """The name of an Authentication Method."""
    if not is_text(value) or not 1 <= len(value) <= METHOD_CHARACTERS_MAX:
        raise Culprit(value, f"a name of 1 to {METHOD_CHARACTERS_MAX} characters")
    return value


def response_information(value: object) -> str:
    """The topic that answers of requests go below."""
    # Below $SYS and $delayed nobody can answer, and $share is no topic to subscribe to.
    if not is_text(value) or re.search(r"^\$|[+#]|/$", value):
        expected = (
            "a topic without wildcards that does not begin with $, "
            f"of at most {TEXT_CHARACTERS_MAX} characters"
        )
        raise Culprit(value, expected)
    return value


def server_reference(value: object) -> str:
    """The name of another server."""
    if not is_text(value):
        raise Culprit(value, f"a name of at most {TEXT_CHARACTERS_MAX} characters")
    return value


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value can stand in a packet as it is."""
    return isinstance(value, str) and len(value) <= TEXT_CHARACTERS_MAX and value.isprintable()


class Culprit(PydanticCustomError):
    """The one part of a value that is wrong, and what was expected in its place."""

    def __new__(cls, value: object, expected: str) -> "Culprit":
        return super().__new__(cls, "culprit", "{expected}", {"value": value, "expected": expected})


Addresses = Annotated[tuple[Address, ...], PlainValidator(listen_addresses)]
DataDir = Annotated[Path, PlainValidator(data_dir)]
KeyAddress = Annotated[str, PlainValidator(key_address)]
MethodName = Annotated[str, PlainValidator(method_name)]
ResponseTopic = Annotated[str, PlainValidator(response_information)]
ServerName = Annotated[str, PlainValidator(server_reference)]
UrlPath = Annotated[str, PlainValidator(url_path)]
Origins = Annotated[tuple[str, ...], PlainValidator(origins)]
