"""Settings: defaults, then a TOML file, then the environment, then the command line.

Each layer is checked by itself, so that an error names the place the wrong value came from.
"""

import difflib
import ipaddress
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeGuard, get_args

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from holdfast.errors import ConfigError

__all__ = [
    "ENVIRONMENT_PREFIX",
    "ListenAddress",
    "LogLevel",
    "LogPolicy",
    "QueuePolicy",
    "ServerRedirect",
    "Settings",
    "SharedStrategy",
    "StoreKind",
    "StoreRecovery",
    "load_settings",
]

ENVIRONMENT_PREFIX: Final = "HOLDFAST_"
PORT_MAX: Final = 65_535
TEXT_CHARACTERS_MAX: Final = 1024  # of a text that goes into packets
VALUE_CHARACTERS_MAX: Final = 80  # of a wrong value, in an error message
LISTEN_EXPECTED: Final = "HOST:PORT, such as 127.0.0.1:1883 or [::1]:1883, port 0 for any free one"

# Variables of ours that set nothing: for the build, for the tests, and the name of the file.
_NOT_SETTINGS: Final = frozenset({"HOLDFAST_CONFIG", "HOLDFAST_EXPECT", "HOLDFAST_PURE"})

LogLevel = Literal["debug", "info", "warning", "error"]
StoreKind = Literal["sqlite", "memory"]
StoreRecovery = Literal["retry", "stop"]
ServerRedirect = Literal["none", "use_another_server", "server_moved"]
QueuePolicy = Literal["refuse", "drop_oldest", "drop_newest", "end_session"]
LogPolicy = Literal["refuse", "drop_oldest"]
SharedStrategy = Literal["round_robin", "least_in_flight", "sticky", "hash_client", "hash_topic"]


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a listener binds: a host name or address (IPv6 without brackets) and a TCP port."""

    host: str
    port: int  # 0: any free port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _listen_addresses(value: object) -> tuple[ListenAddress, ...]:
    """Addresses from a list, or from one string with commas, which is all a variable can hold."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) == 0:
        raise _Culprit(value, f"a list of {LISTEN_EXPECTED}")
    addresses = tuple(_listen_address(part) for part in parts)
    fixed = [address for address in addresses if address.port != 0]
    for address in fixed:
        if fixed.count(address) > 1:
            raise _Culprit(str(address), "each address once")
    return addresses


def _listen_address(part: object) -> ListenAddress:
    if isinstance(part, ListenAddress):
        return part
    if not isinstance(part, str):
        raise _Culprit(part, LISTEN_EXPECTED)
    host, colon, port = part.strip().rpartition(":")
    if colon == "" or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise _Culprit(part, LISTEN_EXPECTED)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _Culprit(part, LISTEN_EXPECTED) from None
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise _Culprit(part, LISTEN_EXPECTED)
    return ListenAddress(host, int(port))


def _data_dir(value: object) -> Path:
    if isinstance(value, Path):
        return value
    # An empty string would silently be the working directory.
    if not isinstance(value, str) or value == "" or "\0" in value:
        raise _Culprit(value, "the path of a folder")
    return Path(value)


def _response_information(value: object) -> str:
    # Below $SYS and $delayed nobody can answer, and $share is no topic to subscribe to.
    if not _is_text(value) or re.search(r"^\$|[+#]|/$", value):
        expected = (
            "a topic without wildcards that does not begin with $, "
            f"of at most {TEXT_CHARACTERS_MAX} characters"
        )
        raise _Culprit(value, expected)
    return value


def _server_reference(value: object) -> str:
    if not _is_text(value):
        raise _Culprit(value, f"a name of at most {TEXT_CHARACTERS_MAX} characters")
    return value


def _is_text(value: object) -> TypeGuard[str]:
    """Whether a value can stand in a packet as it is."""
    return isinstance(value, str) and len(value) <= TEXT_CHARACTERS_MAX and value.isprintable()


class _Culprit(PydanticCustomError):
    """The one part of a value that is wrong, and what was expected in its place."""

    def __new__(cls, value: object, expected: str) -> "_Culprit":
        return super().__new__(cls, "culprit", "{expected}", {"value": value, "expected": expected})


class Settings(BaseModel):
    """All settings of the broker, checked, in the order of the reference: by what they are about.

    Units are in the names; see each description.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    listen: Annotated[tuple[ListenAddress, ...], PlainValidator(_listen_addresses)] = Field(
        default=(ListenAddress("127.0.0.1", 1883),),
        description="Addresses for MQTT over TCP, each HOST:PORT; port 0 is any free one.",
    )
    data_dir: Annotated[Path, PlainValidator(_data_dir)] = Field(
        default=Path("data"),
        description="Folder of the store, made if missing; relative to the working directory.",
    )
    store: StoreKind = Field(
        default="sqlite",
        description="What keeps sessions and messages: sqlite (durable) or memory (lost at exit).",
    )
    store_strict: bool = Field(
        default=False,
        description="Refuse to start on a damaged store, where else it is repaired and what is "
        "lost is reported.",
    )
    store_recovery: StoreRecovery = Field(
        default="retry",
        description="When the store fails while the broker runs: retry (refuse all clients, open "
        "it again until it works) or stop (exit code 4).",
    )
    log_level: LogLevel = Field(
        default="info",
        description="The least severe records to log: debug, info, warning or error.",
    )
    log_json: bool = Field(
        default=False,
        description="Log one JSON object per line, not readable text.",
    )
    connect_timeout_s: float = Field(
        default=10.0,
        ge=0.1,
        le=3600,
        description="Seconds that a new connection has for CONNECT and authentication; then it is "
        "closed.",
    )
    keep_alive_max_s: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="Seconds of the longest keep alive; a longer one or none is lowered to it "
        "(Server Keep Alive, 5.0). 0: no limit.",
    )
    packet_bytes_max: int = Field(
        default=1_048_576,
        ge=64,
        le=268_435_455,
        description="Bytes of the largest packet taken from a client (Maximum Packet Size, 5.0).",
    )
    topic_alias_maximum: int = Field(
        default=64,
        ge=0,
        le=65_535,
        description="Topic Aliases that one connection may set for what it publishes, each some "
        "memory (Topic Alias Maximum, 5.0). 0: none.",
    )
    session_expiry_max_s: int = Field(
        default=0xFFFF_FFFF,
        ge=0,
        le=0xFFFF_FFFF,
        description="Seconds that a session is kept at most after its connection ended. "
        "4294967295: for ever.",
    )
    session_expiry_default_s: int = Field(
        default=7_776_000,
        ge=0,
        le=0xFFFF_FFFF,
        description="Seconds that a session of MQTT 3.1.1 and 3.1 with Clean Session 0 is kept, "
        "which cannot say for how long: 90 days. 4294967295: for ever.",
    )
    sessions_max: int = Field(
        default=1_000_000,
        ge=0,
        le=100_000_000,
        description="Sessions, online and absent; a CONNECT for one more is refused. 0: no limit.",
    )
    subscriptions_max: int = Field(
        default=10_000,
        ge=0,
        le=10_000_000,
        description="Subscriptions of one session; further ones are refused. 0: no limit.",
    )
    queued_messages_max: int = Field(
        default=1_000_000,
        ge=0,
        le=1_000_000_000_000,
        description="QoS 1 and 2 messages that may wait for one session or shared group, absent or "
        "slow; then `queue_policy` holds. 0: no limit.",
    )
    queued_bytes_max: int = Field(
        default=1_073_741_824,
        ge=0,
        le=1_000_000_000_000_000,
        description="Bytes of these, payloads and properties. 0: no limit.",
    )
    queue_policy: QueuePolicy = Field(
        default="refuse",
        description="At these limits: refuse (the publisher is told 0x97 in 5.0 and disconnected "
        "before; nothing acknowledged is lost), drop_oldest, drop_newest (both for this session "
        "alone) or end_session (a shared group is emptied).",
    )
    log_messages_max: int = Field(
        default=100_000_000,
        ge=0,
        le=1_000_000_000_000,
        description="QoS 1 and 2 messages in the store, each once for all sessions; then "
        "`log_policy` holds. 0: no limit.",
    )
    log_bytes_max: int = Field(
        default=68_719_476_736,
        ge=0,
        le=1_000_000_000_000_000,
        description="Bytes of these, payloads and properties. 0: no limit.",
    )
    log_policy: LogPolicy = Field(
        default="refuse",
        description="At these limits: refuse, or drop_oldest, for every session that has not been "
        "given them.",
    )
    log_age_max_s: int = Field(
        default=0,
        ge=0,
        le=0xFFFF_FFFF,
        description="Seconds that a message waits in the store at most, then it is dropped for "
        "every session that has not been given it. 0: no limit.",
    )
    disk_free_min_bytes: int = Field(
        default=67_108_864,
        ge=0,
        le=1_000_000_000_000,
        description="Bytes of the disk that are kept free: with less, messages that have to be "
        "stored are refused.",
    )
    retained_messages_max: int = Field(
        default=1_000_000,
        ge=0,
        le=100_000_000,
        description="Retained messages; further topics are refused. 0: no limit.",
    )
    retained_bytes_max: int = Field(
        default=1_073_741_824,
        ge=0,
        le=1_000_000_000_000,
        description="Bytes of their payloads, which are kept in memory as well. 0: no limit.",
    )
    receive_maximum: int = Field(
        default=1024,
        ge=1,
        le=65_535,
        description="QoS 1 and 2 messages that one publisher may have in flight towards the broker "
        "(Receive Maximum, 5.0).",
    )
    inflight_max: int = Field(
        default=256,
        ge=1,
        le=65_535,
        description="QoS 1 and 2 messages in flight towards one subscriber; its own Receive "
        "Maximum can only lower it.",
    )
    shared_strategy: SharedStrategy = Field(
        default="round_robin",
        description="Which member of a shared subscription gets a message: round_robin, "
        "least_in_flight, sticky (one until it goes), hash_client (by publisher) or hash_topic. "
        "With the last three a message waits for its member.",
    )
    maximum_qos: int = Field(
        default=2,
        ge=0,
        le=2,
        description="Highest QoS of messages and wills taken; subscriptions are lowered to it "
        "(Maximum QoS, 5.0).",
    )
    retain_available: bool = Field(
        default=True,
        description="Whether retained messages are taken and sent (Retain Available, 5.0).",
    )
    check_payload_format: bool = Field(
        default=False,
        description="Refuse messages and wills that say they are UTF-8 (Payload Format Indicator, "
        "5.0) and are not.",
    )
    delayed_seconds_max: int = Field(
        default=31_536_000,
        ge=0,
        le=0xFFFF_FFFF,
        description="Seconds of the longest delay of a message to $delayed/seconds/topic.",
    )
    delayed_messages_max: int = Field(
        default=100_000,
        ge=0,
        le=10_000_000,
        description="Delayed messages that wait at a time; further ones are refused.",
    )
    delayed_bytes_max: int = Field(
        default=268_435_456,
        ge=0,
        le=1_099_511_627_776,
        description="Bytes of the delayed messages that wait at a time; they are kept in memory "
        "as well.",
    )
    response_information: Annotated[str, PlainValidator(_response_information)] = Field(
        default="",
        description="Topic under which a client that asks (Response Information, 5.0) is told to "
        "have its answers, as TOPIC/CLIENT-ID. Empty: none.",
    )
    server_reference: Annotated[str, PlainValidator(_server_reference)] = Field(
        default="",
        description="Another server that clients of 5.0 are told to use when this one stops or "
        "redirects, such as broker-2:1883. Empty: none.",
    )
    server_redirect: ServerRedirect = Field(
        default="none",
        description="Turn every client away: none, use_another_server (for now) or server_moved "
        "(for ever).",
    )
    sys_interval_s: int = Field(
        default=10,
        ge=0,
        le=86_400,
        description="Seconds between two updates of the `$SYS` topics. 0: there are none.",
    )


def load_settings(
    *,
    config_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """The settings of one broker, a later layer replacing an earlier one key by key.

    ``environment`` is all variables; those that begin with ``HOLDFAST_`` count. ``config_file``
    wins over the file that ``HOLDFAST_CONFIG`` names. ``overrides`` are from the command line, by
    key; None means not given.

    Raises ConfigError, with one line that names the source, key, value and what was expected.
    """
    environment = {} if environment is None else environment
    named = environment.get(f"{ENVIRONMENT_PREFIX}CONFIG", "")
    if config_file is None and named != "":
        config_file = Path(named)
    values: dict[str, object] = {}
    if config_file is not None:
        values |= _from_file(config_file)
    values |= _from_environment(environment)
    values |= _from_command_line({} if overrides is None else overrides)
    return Settings.model_validate(values)


def _from_file(file: Path) -> dict[str, object]:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: expected UTF-8, byte {error.start} is not") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
    try:
        return _given(Settings.model_validate(raw, strict=True))
    except ValidationError as error:
        raise ConfigError(f"{file}: {_complaint(error, lambda key: key)}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    raw: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NOT_SETTINGS:
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable == _variable(key) and key in Settings.model_fields:
            raw[key] = value
        elif (near := _closest(key)) is not None:
            # Only what looks like one of ours is an error: Kubernetes sets HOLDFAST_PORT and
            # more for a service of the name holdfast.
            raise ConfigError(
                f"environment: {variable} is unknown; did you mean {_variable(near)}?"
            )
    try:
        return _given(Settings.model_validate_strings(raw))
    except ValidationError as error:
        raise ConfigError(f"environment: {_complaint(error, _variable)}") from error


def _from_command_line(overrides: Mapping[str, object]) -> dict[str, object]:
    raw = {key: value for key, value in overrides.items() if value is not None}
    try:
        return _given(Settings.model_validate(raw, strict=True))
    except ValidationError as error:
        raise ConfigError(f"command line: {_complaint(error, _option)}") from error


def _given(layer: Settings) -> dict[str, object]:
    """What a layer sets, without the defaults of what it does not."""
    return {key: getattr(layer, key) for key in layer.model_fields_set}


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper()


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _complaint(error: ValidationError, name: Callable[[str], str]) -> str:
    """One line about the first wrong key, called by the name it has in its layer."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        near = _closest(key)
        hint = "" if near is None else f"; did you mean {name(near)}?"
        return f"{name(_in_one_line(key))} is unknown{hint}"
    context = first.get("ctx", {})
    value = context.get("value", first["input"])
    expected = context["expected"] if first["type"] == "culprit" else _expected(key)
    return f"{name(key)} = {_shown(value)}: expected {expected}"


def _expected(key: str) -> str:
    """What values a setting takes, in words, from its own declaration."""
    field = Settings.model_fields[key]
    if field.annotation is bool:
        return "true or false"
    choices = get_args(field.annotation)
    if choices:
        return "one of " + ", ".join(map(str, choices))
    least = [f"from {bound.ge}" for bound in field.metadata if isinstance(bound, Ge)]
    most = [f"to {bound.le}" for bound in field.metadata if isinstance(bound, Le)]
    number = "a whole number" if field.annotation is int else "a number"
    return " ".join([number, *least, *most])


def _closest(key: str) -> str | None:
    """The setting that a misspelt key most likely meant."""
    near = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.7)
    return near[0] if near else None


def _shown(value: object) -> str:
    """A wrong value as TOML writes it, in one line of bounded length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _in_one_line(json.dumps(value) if isinstance(value, str) else str(value))


def _in_one_line(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "…"
