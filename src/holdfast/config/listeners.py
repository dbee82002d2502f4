"""The settings of one listener: where it listens, over what, and what holds for its clients."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from holdfast.config.values import (
    Address,
    FilePath,
    Origins,
    SecretFilePath,
    UnixMode,
    UrlPath,
    listen_address,
)

ClientCertificates = Literal["none", "optional", "required"]
CertificateIdentity = Literal["common_name", "dns_name", "email", "uri", "fingerprint"]
TlsVersion = Literal["1.2", "1.3"]
MqttVersion = Literal["3.1", "3.1.1", "5.0"]


class SniSettings(BaseModel):
    """Another certificate for clients that ask for this server name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server_name: str = Field(description="Name that the client asks for, such as mqtt.example.org.")
    certificate: FilePath = Field(description="File of its certificate chain, PEM.")
    key: SecretFilePath = Field(description="File of its private key, PEM.")


class TlsSettings(BaseModel):
    """TLS of one listener."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: FilePath = Field(description="File of the server's certificate chain, PEM.")
    key: SecretFilePath = Field(description="File of its private key, PEM.")
    minimum_version: TlsVersion = Field(default="1.2", description="Oldest version of TLS taken.")
    ciphers: str = Field(
        default="",
        description="Ciphers of TLS 1.2, as OpenSSL writes them. Empty: those with forward "
        "secrecy and authenticated encryption.",
    )
    client_certificates: ClientCertificates = Field(
        default="none",
        description="Whether clients show a certificate: none, optional or required.",
    )
    client_ca: FilePath | None = Field(
        default=None,
        description="File of the certificates that sign those of clients, PEM.",
    )
    crl: FilePath | None = Field(
        default=None, description="File of the certificates that are revoked, PEM."
    )
    identity: CertificateIdentity = Field(
        default="common_name",
        description="What of a client's certificate is its name: common_name, dns_name, email or "
        "uri (the first of its Subject Alternative Names) or fingerprint (SHA-256).",
    )
    handshake_timeout_s: float = Field(
        default=10.0, ge=0.1, le=600, description="Seconds that a handshake may take."
    )
    sni: tuple[SniSettings, ...] = Field(
        default=(), description="Further certificates, by the server name that a client asks for."
    )

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the TLS of a listener is made from."""
        found = [self.certificate, self.key, self.client_ca, self.crl]
        for sni in self.sni:
            found += [sni.certificate, sni.key]
        return tuple(file for file in found if file is not None)


class WebSocketSettings(BaseModel):
    """MQTT over WebSocket on one listener."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: UrlPath = Field(
        default="/mqtt", description="Path of the URL; another one is answered 404."
    )
    origins: Origins = Field(
        default=(),
        description="Origins of pages that may connect, such as https://example.org; others are "
        "answered 403. Empty: all. Clients that are no pages send none, and are not refused.",
    )
    ping_interval_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Seconds of silence after which a ping is sent; after as many more without an "
        "answer the connection is closed. 0: never.",
    )


class ListenerSettings(BaseModel):
    """One listener; what it leaves open holds as for the whole broker."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    address: Annotated[Address, PlainValidator(listen_address)] = Field(
        description="HOST:PORT (port 0 is any free one) or unix:PATH.",
    )
    name: str = Field(
        default="", max_length=64, description="Its name in logs and rules. Empty: its address."
    )
    tls: TlsSettings | None = Field(default=None, description="TLS. Not given: none.")
    websocket: WebSocketSettings | None = Field(
        default=None, description="MQTT over WebSocket. Not given: plain MQTT."
    )
    unix_mode: UnixMode = Field(default="0660", description="Permissions of a Unix socket, octal.")
    proxy_protocol_from: tuple[str, ...] = Field(
        default=(),
        description="Addresses or networks of proxies that begin each connection with a PROXY "
        "header, version 1 or 2, such as 10.0.0.0/8; others are not let in. unix is for whoever "
        "may open the Unix socket. Empty: no header is read.",
    )
    allow_anonymous: bool | None = Field(
        default=None, description="As the setting of the whole broker, for this listener."
    )
    authenticators: tuple[str, ...] | None = Field(
        default=None, description="Names of the authenticators that are asked. Not given: all."
    )
    versions: tuple[MqttVersion, ...] = Field(
        default=("3.1", "3.1.1", "5.0"), description="Versions of MQTT that are spoken."
    )
    packet_bytes_max: int | None = Field(
        default=None, ge=64, le=268_435_455, description="As the setting of the whole broker."
    )
    connections_max: int | None = Field(
        default=None, ge=0, le=100_000_000, description="Connections at a time. 0: no limit."
    )
    connections_per_s: float | None = Field(
        default=None, ge=0, le=1_000_000, description="As the setting of the whole broker."
    )
    publish_messages_per_s: int | None = Field(
        default=None, ge=0, le=10_000_000, description="As the setting of the whole broker."
    )
    publish_messages_burst: int | None = Field(
        default=None, ge=0, le=100_000_000, description="As the setting of the whole broker."
    )
    publish_bytes_per_s: int | None = Field(
        default=None, ge=0, le=10_000_000_000, description="As the setting of the whole broker."
    )
    publish_bytes_burst: int | None = Field(
        default=None, ge=0, le=100_000_000_000, description="As the setting of the whole broker."
    )
    keep_alive_min_s: int | None = Field(
        default=None, ge=0, le=65_535, description="As the setting of the whole broker."
    )
    keep_alive_max_s: int | None = Field(
        default=None, ge=0, le=65_535, description="As the setting of the whole broker."
    )

    @property
    def title(self) -> str:
        """Its name, or else its address."""
        return self.name or str(self.address)

    @property
    def is_local(self) -> bool:
        """Whether nobody outside of this machine can reach it."""
        return self.address.is_local
