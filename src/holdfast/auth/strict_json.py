"""JSON from strangers: UTF-8, one object, no name twice, no numbers that are none."""

import json
import math
from typing import Final

JsonObject = dict[str, object]

NUMBER_CHARACTERS_MAX: Final = 32  # longer ones are no times and no counts


def read_json(content: bytes) -> JsonObject:
    """The object that a text is. Raises ValueError, which says nothing of what is in it.

    A name that comes twice is refused: another reader may have taken the other one.
    """
    try:
        text = content.decode("utf-8")
        found = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except (ValueError, RecursionError):
        raise ValueError("not well-formed JSON") from None
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _object(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _constant(name: str) -> object:
    raise ValueError("NaN and Infinity are no JSON")


def _integer(text: str) -> int:
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise ValueError("a number is too long")
    return int(text)


def _float(text: str) -> float:
    number = float(text) if len(text) <= NUMBER_CHARACTERS_MAX else math.inf
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
