"""The settings of rules that bind client identifiers to users."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from holdfast.config.values import Culprit, is_text


def _pattern(value: object) -> str:
    if not is_text(value) or not re.fullmatch(r"([^%]|%%|%u|%a\{[^{}]+\})+", value):
        expected = "a client id; * is anything in it, %u the user, %a{NAME} an attribute, %% is %"
        raise Culprit(value, expected)
    return value


class ClientIdSettings(BaseModel):
    """Which client identifiers users may have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: tuple[str, ...] = Field(
        default=("*",),
        min_length=1,
        description="Names of users, in which * is anything. Anonymous clients are in `*` alone.",
    )
    client_ids: tuple[Annotated[str, PlainValidator(_pattern)], ...] = Field(
        min_length=1,
        description="Client identifiers that these users may have, in which * is anything, %u the "
        "name of the user, %a{NAME} an attribute and %% is %.",
    )
    reserved: bool = Field(
        default=False,
        description="Whether nobody else may have them; then they are without placeholders.",
    )
