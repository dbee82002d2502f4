"""The settings of authenticators: each kind has a table of its own."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from holdfast.config.values import FilePath, HttpUrl, SecretFilePath

ScramMethod = Literal["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class PasswordFileSettings(BaseModel):
    """Users and passwords from a file that ``holdfast passwd`` writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["password_file"] = Field(description="password_file.")
    name: str = Field(default="password_file", description="Its name in logs and listeners.")
    file: SecretFilePath = Field(description="File of users and the hashes of their passwords.")
    cache_s: int = Field(
        default=86_400,
        ge=0,
        le=0xFFFF_FFFF,
        description="Seconds for which a right password is remembered, as a digest under a key of "
        "this process, so that it is not hashed at each reconnect. 0: not at all.",
    )


class CertificateSettings(BaseModel):
    """Users by the certificates that they show over TLS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["certificate"] = Field(description="certificate.")
    name: str = Field(default="certificate", description="Its name in logs and listeners.")
    other_user_name: Literal["refuse", "ignore"] = Field(
        default="refuse",
        description="What becomes of a client whose CONNECT has another user name than its "
        "certificate: refuse, or ignore that name.",
    )


class ScramSettings(BaseModel):
    """Users who prove their passwords by SCRAM, with an Authentication Method of 5.0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["scram"] = Field(description="scram.")
    name: str = Field(default="scram", description="Its name in logs and listeners.")
    file: SecretFilePath = Field(
        description="Password file that `holdfast passwd --scram` writes; the one of a "
        "password_file will do."
    )
    methods: tuple[ScramMethod, ...] = Field(
        default=("SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"),
        description="Methods that are offered to clients.",
    )


class HttpSettings(BaseModel):
    """Clients that an HTTP server knows, which is asked at each login."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["http"] = Field(description="http.")
    name: str = Field(default="http", description="Its name in logs and listeners.")
    url: HttpUrl = Field(
        description="Where logins are posted to, https://HOST/PATH; http:// only where nobody else "
        "hears the passwords."
    )
    timeout_s: float = Field(
        default=5.0, ge=0.1, le=60, description="Seconds that one question may take."
    )
    connections_max: int = Field(
        default=8, ge=1, le=64, description="Questions that are asked at a time; others wait."
    )
    cache_s: int = Field(
        default=300,
        ge=0,
        le=0xFFFF_FFFF,
        description="Seconds for which what was allowed is allowed again without asking. 0: none.",
    )
    on_error: Literal["unavailable", "deny", "ignore"] = Field(
        default="unavailable",
        description="What becomes of a client when the server does not answer, or not as expected: "
        "unavailable (it is told to try again later), deny, or ignore (the next authenticator is "
        "asked).",
    )
    headers_file: SecretFilePath | None = Field(
        default=None,
        description="File of headers to send, one NAME: VALUE a line, such as Authorization.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="File of the certificates, PEM, that the server's is checked against. Not "
        "given: those of the system.",
    )


# One table of any kind. `kind` says which.
AuthenticatorSettings = Annotated[
    PasswordFileSettings | CertificateSettings | ScramSettings | HttpSettings,
    Field(discriminator="kind"),
]
