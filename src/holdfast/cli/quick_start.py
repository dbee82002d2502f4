"""Commands that start at once: their options are converted without Pydantic.

Typer asks Pydantic for each option, whether it was given or not. To import it, and to build what
converts fifty options, takes longer than all the rest of `holdfast pub`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer._click import Context, Parameter

__all__ = ["quick_value", "quickened"]


def quickened(parameters: "list[Parameter]") -> "list[Parameter]":
    """The parameters of a command, which are converted by ``quick_value`` from now on."""
    for parameter in parameters:
        if "process_value" not in vars(parameter):
            vars(parameter)["process_value"] = _quick_process(parameter)
    return parameters


def _quick_process(parameter: "Parameter") -> "Callable[[Context, object], object]":
    usual = parameter.process_value

    def process_value(ctx: "Context", value: object) -> object:
        converted = None if parameter.required else quick_value(parameter, value)
        if converted is None:
            return usual(ctx, value)
        if parameter.callback is None:
            return converted[0]
        return parameter.callback(ctx, parameter, converted[0])

    return process_value


def quick_value(parameter: "Parameter", value: object) -> tuple[object] | None:
    """The value of an option as the command gets it; None if Typer has to say what it is.

    What is wrong with a value is left to Typer.
    """
    if value is None:
        return ((),) if parameter.multiple else (None,)
    described = getattr(parameter, "type_descriptor", None)
    kind, limits = (
        getattr(described, "annotation", None),
        getattr(described, "parameter_info", None),
    )
    if kind is None or limits is None:
        return None
    if value is parameter.default or isinstance(value, bool):
        return (value,)
    if kind in (list[str], str):
        return (value,)
    if not isinstance(value, str):
        return None
    if kind is Path:
        return (Path(value),)
    number: int | float
    if kind is int and value.isascii() and value.isdigit():
        number = int(value)
    elif kind is float and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        number = float(value)
    else:
        return None
    is_low = limits.min is not None and number < limits.min
    is_high = limits.max is not None and number > limits.max
    return None if is_low or is_high else (number,)
