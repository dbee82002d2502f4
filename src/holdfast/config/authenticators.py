"""The settings of authenticators: each kind has a table of its own."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from holdfast.config.values import FilePath


class PasswordFileSettings(BaseModel):
    """Users and passwords from a file that ``holdfast passwd`` writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["password_file"] = Field(description="password_file.")
    name: str = Field(default="password_file", description="Its name in logs and listeners.")
    file: FilePath = Field(description="File of users and the hashes of their passwords.")


AuthenticatorSettings = PasswordFileSettings
