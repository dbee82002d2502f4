"""The settings of a broker, apart from where they come from."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from holdfast.config.authenticators import AuthenticatorSettings
from holdfast.config.client_ids import ClientIdSettings
from holdfast.config.listeners import ListenerSettings
from holdfast.config.overload import OverloadSettings
from holdfast.config.plugins import AuthorizerSettings
from holdfast.config.values import (
    Addresses,
    DataDir,
    FilePath,
    ListenAddress,
    ResponseTopic,
    ServerName,
)

LogLevel = Literal["debug", "info", "warning", "error"]
StoreKind = Literal["sqlite", "memory"]
StoreRecovery = Literal["retry", "stop"]
ServerRedirect = Literal["none", "use_another_server", "server_moved"]
QueuePolicy = Literal["refuse", "drop_oldest", "drop_newest", "end_session"]
WideSubscriptions = Literal["refuse", "narrow"]
DeniedPublish = Literal["drop", "disconnect"]
TokenRules = Literal["before", "instead"]
LogPolicy = Literal["refuse", "drop_oldest"]
SharedStrategy = Literal["round_robin", "least_in_flight", "sticky", "hash_client", "hash_topic"]


class _Settings(BaseModel):
    """All but those of ``config/overload.py``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    listen: Addresses = Field(
        default=(ListenAddress("127.0.0.1", 1883),),
        description="Addresses for plain MQTT, each HOST:PORT (port 0 is any free one) or "
        "unix:PATH. If there are `[[listeners]]`, the default is none.",
    )
    listeners: tuple[ListenerSettings, ...] = Field(
        default=(),
        description="Listeners with settings of their own, each a table.",
    )
    authenticators: tuple[AuthenticatorSettings, ...] = Field(
        default=(),
        description="What decides who may connect, each a table, in the order they are asked.",
    )
    allow_anonymous: bool | None = Field(
        default=None,
        description="Whether clients may connect that come without a user name; where there are no "
        "authenticators, any client. Not given: only where there are none, and then the broker "
        "listens on loopback and Unix sockets alone.",
    )
    client_ids: tuple[ClientIdSettings, ...] = Field(
        default=(),
        description="Which client identifiers users may have, each a table: the first that is "
        "about a user holds. Users that no table is about may have any that is not reserved.",
    )
    auth_threads: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Threads that verify passwords and signatures; each password costs 19 MiB of "
        "memory meanwhile. 0: one less than there are processors, at least 1 and at most 4.",
    )
    authorizers: tuple[AuthorizerSettings, ...] = Field(
        default=(),
        description="Plug-ins that give rules of access, each a table, tried before `acl_file`.",
    )
    acl_file: FilePath | None = Field(
        default=None,
        description="File of rules that say who may publish and subscribe to what. Not given: "
        "everyone to everything.",
    )
    acl_wide_subscriptions: WideSubscriptions = Field(
        default="refuse",
        description="A subscription to more than the rules allow: refuse it, or narrow it, which "
        "accepts it and delivers what is allowed. A shared one is refused in any case.",
    )
    acl_denied_publish_v311: DeniedPublish = Field(
        default="drop",
        description="A publish that the rules deny, at QoS 1 or 2 from a client before 5.0: drop "
        "(acknowledge it all the same) or disconnect. A client of 5.0 is told 0x87.",
    )
    acl_token_rules: TokenRules = Field(
        default="before",
        description="Rules that come with a client's token: tried before those of the ACL file, "
        "or instead of them.",
    )
    data_dir: DataDir = Field(
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
    keep_alive_min_s: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="Seconds of the shortest keep alive; a shorter one is raised to it (Server "
        "Keep Alive, 5.0). 0: no limit.",
    )
    connect_bytes_max: int = Field(
        default=131_072,
        ge=64,
        le=268_435_455,
        description="Bytes of the largest packet taken before a client has been let in, such as "
        "its CONNECT with the will.",
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
    response_information: ResponseTopic = Field(
        default="",
        description="Topic under which a client that asks (Response Information, 5.0) is told to "
        "have its answers, as TOPIC/CLIENT-ID. Empty: none.",
    )
    server_reference: ServerName = Field(
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

    @property
    def all_listeners(self) -> tuple[ListenerSettings, ...]:
        """The listeners of ``listen``, if it holds, then those of ``listeners``."""
        return self.plain_listeners + self.listeners

    @property
    def plain_listeners(self) -> tuple[ListenerSettings, ...]:
        """Those of ``listen``, which have nothing of their own but the address."""
        if self.listeners and "listen" not in self.model_fields_set:
            return ()
        return tuple(ListenerSettings(address=address) for address in self.listen)

    def authenticators_of(self, listener: ListenerSettings) -> tuple[AuthenticatorSettings, ...]:
        """The authenticators that a listener asks, in this order."""
        if listener.authenticators is None:
            return self.authenticators
        by_name = {authenticator.name: authenticator for authenticator in self.authenticators}
        return tuple(by_name[name] for name in listener.authenticators if name in by_name)

    def lets_in_anonymous(self, listener: ListenerSettings) -> bool:
        """Whether clients without a user name, or of any name if nobody asks, may connect there.

        Where it is not written down, only if there is no authenticator; and then a listener that
        other machines can reach is none that the broker starts with: see ``config.checks``.
        """
        written = self.anonymous_as_written(listener)
        return not self.authenticators_of(listener) if written is None else written

    def anonymous_as_written(self, listener: ListenerSettings) -> bool | None:
        """``allow_anonymous`` of a listener, or else of the broker; None if neither says so."""
        own = listener.allow_anonymous
        return self.allow_anonymous if own is None else own


class Settings(OverloadSettings, _Settings):
    """All settings of the broker, checked, in the order of the reference: by what they are about.

    Units are in the names; see each description.
    """
