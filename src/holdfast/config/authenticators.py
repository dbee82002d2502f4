"""The settings of authenticators: each kind has a table of its own."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from holdfast.config.plugins import PluginSettings
from holdfast.config.values import (
    Culprit,
    FilePath,
    HttpUrl,
    KeyAddress,
    MethodName,
    SecretFilePath,
)

JwtAlgorithm = Literal[
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
]
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
        min_length=1,
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


class JwtSettings(BaseModel):
    """Users by JSON Web Tokens, shown as a password or with an Authentication Method of 5.0."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["jwt"] = Field(description="jwt.")
    name: str = Field(default="jwt", description="Its name in logs and listeners.")
    algorithms: tuple[JwtAlgorithm, ...] = Field(
        min_length=1, description="Algorithms of signatures that are taken, no others."
    )
    secret_file: SecretFilePath | None = Field(
        default=None,
        description="File with the secret for HS256, HS384 and HS512, of 32, 48 or 64 bytes at "
        "least. A line's end behind it does not count.",
    )
    public_key_file: FilePath | None = Field(
        default=None,
        description="File with public keys or certificates, PEM, for the other algorithms.",
    )
    jwks_file: FilePath | None = Field(
        default=None,
        description="File with a JWK Set: public keys, and secrets too, which nobody else is to "
        "read.",
    )
    jwks_url: KeyAddress | None = Field(
        default=None,
        description="URL of a JWK Set of public keys: https, or http to this machine. Redirects "
        "are not followed, proxies not used.",
    )
    jwks_ca_file: FilePath | None = Field(
        default=None,
        description="File of the certificates that sign the one of `jwks_url`, PEM. Not given: "
        "those that the system trusts.",
    )
    jwks_timeout_s: float = Field(
        default=5.0, ge=0.1, le=60, description="Seconds that the URL may take to answer."
    )
    jwks_refresh_s: float = Field(
        default=3600.0, ge=10, le=604_800, description="Seconds between two looks at the URL."
    )
    jwks_retry_s: float = Field(
        default=10.0,
        ge=1,
        le=3600,
        description="Seconds at least between two looks, when one has failed or a token names a "
        "key that is not known.",
    )
    as_password: bool = Field(
        default=True, description="Whether a token may be the password of CONNECT."
    )
    methods: tuple[MethodName, ...] = Field(
        default=("JWT", "OAUTH2"),
        description="Authentication Methods whose data is a token, with `Bearer ` before it or "
        "not.",
    )
    issuers: tuple[str, ...] = Field(
        default=(),
        description="Issuers (`iss`) that are ours. A token of another one is left to the "
        "authenticators behind. Empty: any.",
    )
    audience: tuple[str, ...] = Field(
        default=(),
        description="Names of this broker, one of which has to be in `aud`. Empty: tokens "
        "without `aud`.",
    )
    required_claims: tuple[str, ...] = Field(
        default=("exp",), description="Claims without which a token is refused."
    )
    leeway_s: float = Field(
        default=10.0,
        ge=0,
        le=600,
        description="Seconds by which clocks may differ, for `exp`, `nbf` and `iat`.",
    )
    token_bytes_max: int = Field(
        default=8192, ge=128, le=65_535, description="Longest token in bytes."
    )
    user_name_claim: str = Field(
        default="sub",
        min_length=1,
        description="Claim with the user name. This and other claims may be named by the way to "
        "them: `realm_access.roles`.",
    )
    other_user_name: Literal["refuse", "ignore"] = Field(
        default="ignore",
        description="What becomes of a client whose CONNECT has another user name than its "
        "token: refuse, or ignore that name.",
    )
    client_id_claim: str = Field(
        default="",
        description="Claim that has to be there and be the client identifier. Empty: none.",
    )
    roles_claim: str = Field(
        default="",
        description="Claim with roles: a list of texts, or one text with spaces. Empty: none.",
    )
    attributes: dict[str, str] = Field(
        default={},
        description="Attributes of the client, each with the claim that has its text.",
    )

    acl_claim: str = Field(
        default="",
        description="Claim with rules as those of the ACL file, a list of objects with `allow` or "
        "`deny` and `topics`; see `acl_token_rules`. A token without it allows nothing by itself. "
        "Empty: none.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "JwtSettings":
        has_secret = self.secret_file is not None
        has_set = self.jwks_file is not None
        has_public = self.public_key_file is not None or self.jwks_url is not None
        takes_secret = any(name.startswith("HS") for name in self.algorithms)
        takes_public = any(not name.startswith("HS") for name in self.algorithms)
        mistakes = {
            "one of secret_file, public_key_file, jwks_file and jwks_url": not (
                has_secret or has_set or has_public
            ),
            "HS256, HS384 or HS512 in algorithms, for secret_file": has_secret and not takes_secret,
            "an algorithm of public keys in algorithms, such as ES256, for public_key_file and "
            "jwks_url": has_public and not takes_public,
            "secret_file or jwks_file, for HS256, HS384 and HS512": takes_secret
            and not (has_secret or has_set),
            "public_key_file, jwks_file or jwks_url, for the algorithms of public keys": (
                takes_public and not (has_public or has_set)
            ),
            "jwks_url, for jwks_ca_file": self.jwks_ca_file is not None and self.jwks_url is None,
            "as_password = true, or methods": not self.as_password and not self.methods,
        }
        for expected, is_mistake in mistakes.items():
            if is_mistake:
                raise Culprit(self.kind, expected)
        return self


# One table of any kind. `kind` says which.
AuthenticatorSettings = Annotated[
    PasswordFileSettings
    | CertificateSettings
    | ScramSettings
    | HttpSettings
    | JwtSettings
    | PluginSettings,
    Field(discriminator="kind"),
]
