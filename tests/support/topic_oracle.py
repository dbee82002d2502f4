"""Which Topic Filter matches which Topic Name, slowly and plainly: the oracle of all fast ones."""

from collections.abc import Sequence


def slowly_matches(topic_filter: str, topic: str) -> bool:
    """What MQTT 5.0 §4.7 says, level by level; of a shared filter what follows its ShareName."""
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[2]
    if topic[0] == "$" and topic_filter[0] in "+#":
        return False
    return slowly_matches_levels(topic_filter.split("/"), topic.split("/"))


def slowly_matches_levels(wanted: Sequence[str], given: Sequence[str]) -> bool:
    """The same for levels, without the rule for "$"."""
    if not wanted:
        return not given
    if wanted[0] == "#":
        return True
    if not given or wanted[0] not in ("+", given[0]):
        return False
    return slowly_matches_levels(wanted[1:], given[1:])
