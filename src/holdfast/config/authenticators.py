"""The settings of authenticators: each kind has a table of its own."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from holdfast.config.values import SecretFilePath


class PasswordFileSettings(BaseModel):
    """Users and passwords from a file that ``holdfast passwd`` writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["password_file"] = Field(description="password_file.")
    name: str = Field(default="password_file", description="Its name in logs and listeners.")
    file: SecretFilePath = Field(description="File of users and the hashes of their passwords.")


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


# One table of any kind. `kind` says which.
AuthenticatorSettings = Annotated[
    PasswordFileSettings | CertificateSettings, Field(discriminator="kind")
]
