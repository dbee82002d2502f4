"""Topic Filters as sets of Topic Names: which holds which, and what two have in common.

All filters here are valid and not shared, given by their levels. A leading wildcard matches no
topic that begins with ``$``. A topic has one character at least: so "/#" matches what "/+/#" does,
for there is no topic "" that would be its parent level. Source: MQTT 5.0 §4.7.
"""


def covers(wide: list[str], narrow: list[str]) -> bool:
    """Whether every topic that ``narrow`` matches is matched by ``wide`` too."""
    if _is_wildcard(wide[0]):
        if narrow[0].startswith("$"):
            return False
        if narrow[0] == "#":
            # "#" and "+/#" match the same, since a topic has one level at least.
            return wide[0] == "#" or (len(wide) == 2 and wide[1] == "#")
    if len(narrow) == 2 and narrow[0] == "" and narrow[1] == "#":
        narrow = ["", "+", "#"]
    length = len(narrow)
    for index in range(len(wide)):
        level = wide[index]
        if level == "#":
            return True
        if index == length:
            return False
        other = narrow[index]
        if other == "#" or (level != "+" and level != other):
            return False
    return len(wide) == length


def overlaps(one: list[str], other: list[str]) -> bool:
    """Whether some topic is matched by both."""
    return intersection(one, other) is not None


def intersection(one: list[str], other: list[str]) -> list[str] | None:
    """The filter of the topics that both match; None if there is no such topic."""
    if _is_wildcard(one[0]):
        if other[0].startswith("$"):
            return None
    elif _is_wildcard(other[0]) and one[0].startswith("$"):
        return None
    common: list[str] = []
    shorter = min(len(one), len(other))
    for index in range(shorter):
        level = one[index]
        wanted = other[index]
        if level == "#":
            return common + other[index:]
        if wanted == "#":
            return common + one[index:]
        if level == "+":
            common.append(wanted)
        elif wanted == "+" or wanted == level:
            common.append(level)
        else:
            return None
    if shorter == 1 and common[0] == "":
        return None
    # "a/#" matches "a", its parent level.
    if len(one) == shorter + 1 and one[shorter] == "#":
        return common
    if len(other) == shorter + 1 and other[shorter] == "#":
        return common
    return common if len(one) == len(other) else None


def uncovered(wanted: list[str], wide: list[list[str]]) -> list[str] | None:
    """A part of ``wanted`` that no filter of ``wide`` matches; None if together they match it all.

    A "+" stands for levels of which there is no end, so what covers it has a wildcard there.
    Hence a filter without "#" is covered by one alone, and one with it by one for each number of
    levels: "a/#" by "a" and "a/+/#".
    """
    if wanted[len(wanted) - 1] != "#":
        return None if _is_covered(wanted, wide) else wanted
    longest = 0
    for candidate in wide:
        longest = max(longest, len(candidate))
    part = wanted[:-1]
    while True:
        deeper = [*part, "#"]
        if _is_covered(deeper, wide):
            return None
        if len(part) > longest:
            return deeper
        if part and part != [""] and not _is_covered(part, wide):
            return part
        part = [*part, "+"]


def _is_covered(wanted: list[str], wide: list[list[str]]) -> bool:
    return any(covers(candidate, wanted) for candidate in wide)


def _is_wildcard(level: str) -> bool:
    return level == "+" or level == "#"
