"""The settings of plug-ins: what is installed beside Holdfast, with options of its own."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from holdfast.config.values import MayBeSecret

Options = Annotated[dict[str, object], MayBeSecret()]


class PluginSettings(BaseModel):
    """An authenticator of another package."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["plugin"] = Field(description="plugin.")
    name: str = Field(default="plugin", description="Its name in logs and listeners.")
    plugin: str = Field(
        min_length=1, description="Name of the entry point in the group `holdfast.authenticators`."
    )
    options: Options = Field(default={}, description="What the plug-in is told; it knows the keys.")


class AuthorizerSettings(BaseModel):
    """An authorizer of another package, whose rules are tried before those of `acl_file`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="authorizer", description="Its name in logs.")
    plugin: str = Field(
        min_length=1, description="Name of the entry point in the group `holdfast.authorizers`."
    )
    options: Options = Field(default={}, description="What the plug-in is told; it knows the keys.")
