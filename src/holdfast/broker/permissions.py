"""What one client may publish, subscribe to and be given: rules in order, the first match decides.

A topic that no rule matches is denied. Of a topic filter all topics count, so its rules are found
by what filters have in common.
"""

from typing import Final, final

from holdfast.protocol.filters import covers, intersection, uncovered
from holdfast.protocol.topics import match_levels, split_share

# What a rule may be about. The special falls under the general as well: see the masks.
PUBLISH: Final = 1
SUBSCRIBE: Final = 2
RECEIVE: Final = 4
RETAIN: Final = 8
SHARE: Final = 16
ALL_ACTIONS: Final = 31

# The actions of the rules that decide about each.
RETAINED_PUBLISH: Final = PUBLISH | RETAIN
SHARED_SUBSCRIBE: Final = SUBSCRIBE | SHARE
DELIVERY: Final = SUBSCRIBE | RECEIVE

NO_RULE: Final = -1  # the index of the rule where none matches

# Topics whose decisions one connection keeps; so many of them take some 50 kB.
PUBLISHED_TOPICS_MAX: Final = 512
RECEIVED_TOPICS_MAX: Final = 512
FILTERS_MAX: Final = 64
CACHED_CHARACTERS_MAX: Final = 256  # of such a topic
# Steps of finding out about one filter; one that takes more is not found to be allowed.
STEPS_MAX: Final = 2000
DEPTH_MAX: Final = 32
LEVELS_OF_A_STEP: Final = 256
RULES_OF_WORK: Final = 4  # as many as take the time of looking at one node of the tree


@final
class Rule:
    """One rule for one topic filter; ``name`` is what the operator knows it by."""

    def __init__(self, is_allowed: bool, actions: int, topic_filter: str, name: str) -> None:
        self.is_allowed = is_allowed
        self.actions = actions
        self.topic_filter = topic_filter
        self.name = name
        self.levels = topic_filter.split("/")
        self.first_level = self.levels[0]
        self.begins_with_wildcard = self.first_level == "+" or self.first_level == "#"
        self.is_exact = "+" not in topic_filter and "#" not in topic_filter


@final
class Verdict:
    """What was decided: ``rule`` is the one that did, None where no rule matches.

    ``part`` is what of a filter is decided otherwise than asked for, "" if nothing is.
    """

    def __init__(self, is_allowed: bool, rule: Rule | None, part: str = "") -> None:
        self.is_allowed = is_allowed
        self.rule = rule
        self.part = part


@final
class Permissions:
    """The permissions of one client, with what has been decided of late.

    ``told_ms`` and ``untold`` are for whoever tells the operator what was denied. ``work`` grows
    with the rules that filters were compared with.
    """

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self.told_ms = 0
        self.untold = 0
        self.work = 0
        self._published: dict[str, bool] = {}
        self._retained: dict[str, bool] = {}
        self._received: dict[str, bool] = {}
        self._received_shared: dict[str, bool] = {}
        self._subscribed: dict[str, bool] = {}
        self._narrowed: dict[str, bool] = {}
        self._steps = 0
        self._decided_by = NO_RULE

    def may_publish(self, topic: str, retain: bool) -> bool:
        """Whether a message to this topic may be published."""
        known = self._retained if retain else self._published
        answer = known.get(topic)
        if answer is None:
            mask = RETAINED_PUBLISH if retain else PUBLISH
            answer = self._is_allowed(topic, mask)
            _keep(known, topic, answer, PUBLISHED_TOPICS_MAX)
        return answer

    def may_receive(self, topic: str) -> bool:
        """Whether the client may be given a message of this topic."""
        answer = self._received.get(topic)
        if answer is None:
            answer = self._is_allowed(topic, DELIVERY)
            _keep(self._received, topic, answer, RECEIVED_TOPICS_MAX)
        return answer

    def may_receive_shared(self, topic: str) -> bool:
        """Whether the client may be given a message of this topic as a member of a group.

        It may have lost the right to share since it joined.
        """
        answer = self._received_shared.get(topic)
        if answer is None:
            answer = self._is_allowed(topic, SHARED_SUBSCRIBE) and self.may_receive(topic)
            _keep(self._received_shared, topic, answer, RECEIVED_TOPICS_MAX)
        return answer

    def may_subscribe(self, topic_filter: str, narrows: bool) -> bool:
        """Whether a valid filter may be subscribed to: if all of it is allowed.

        If it ``narrows``, a part is enough, but not for a shared one: what one member may not have
        would be left to the others.
        """
        known = self._narrowed if narrows else self._subscribed
        answer = known.get(topic_filter)
        if answer is None:
            answer = self.judge_subscribe(topic_filter, narrows).is_allowed
            _keep(known, topic_filter, answer, FILTERS_MAX)
        return answer

    # --- with the reason

    def judge_publish(self, topic: str, retain: bool) -> Verdict:
        """As ``may_publish``, and which rule says so."""
        return self._verdict(self._first(topic, RETAINED_PUBLISH if retain else PUBLISH))

    def judge_receive(self, topic: str) -> Verdict:
        """As ``may_receive``, and which rule says so."""
        return self._verdict(self._first(topic, DELIVERY))

    def judge_subscribe(self, topic_filter: str, narrows: bool) -> Verdict:
        """As ``may_subscribe``, and which rule says so."""
        share_name, inner = split_share(topic_filter)
        mask = SHARED_SUBSCRIBE if share_name else SUBSCRIBE
        wanted = inner.split("/")
        count = len(self.rules)
        self._steps = 0
        denied = self._other_part(wanted, count, mask, True, 0)
        decided_by = self._decided_by
        if denied is None:
            return Verdict(True, self._rule(decided_by))
        part = "/".join(denied)
        if narrows and not share_name:
            self._steps = 0
            allowed = self._other_part(wanted, count, mask, False, 0)
            if allowed is not None and self._decided_by != NO_RULE:
                return Verdict(True, self._rule(self._decided_by), part)
        return Verdict(False, self._rule(decided_by), part)

    # --- deciding

    def _is_allowed(self, topic: str, mask: int) -> bool:
        index = self._first(topic, mask)
        return index != NO_RULE and self.rules[index].is_allowed

    def _first(self, topic: str, mask: int) -> int:
        """The first rule that matches a topic."""
        levels = topic.split("/")
        first_level = levels[0]
        is_dollar = topic.startswith("$")
        for index, rule in enumerate(self.rules):
            if rule.actions & mask == 0:
                continue
            if rule.is_exact:
                if rule.topic_filter == topic:
                    return index
            elif rule.begins_with_wildcard:
                if not is_dollar and match_levels(rule.levels, levels):
                    return index
            elif rule.first_level == first_level and match_levels(rule.levels, levels):
                return index
        return NO_RULE

    def _other_part(
        self, wanted: list[str], end: int, mask: int, is_allowed: bool, depth: int
    ) -> list[str] | None:
        """A part of a filter that the rules below ``end`` do not decide so; None if there is none.

        ``_decided_by`` is the rule that decides that part, NO_RULE if none of them does; without
        such a part, the one that decides last. A part of which it would take too long to tell is
        taken for one as well.
        """
        cost = 1 + len(wanted) // LEVELS_OF_A_STEP
        self.work += 1 + end * cost // RULES_OF_WORK
        same: list[list[str]] = []
        last = NO_RULE
        for index in range(end):
            rule = self.rules[index]
            if rule.actions & mask == 0:
                continue
            self._steps += cost
            if rule.is_allowed == is_allowed:
                same.append(rule.levels)
                if covers(rule.levels, wanted):
                    self._decided_by = index
                    return None
                if intersection(rule.levels, wanted) is not None:
                    last = index
                continue
            common = intersection(rule.levels, wanted)
            if common is None:
                continue
            # The rules above may have decided about all of that.
            if self._steps > STEPS_MAX or depth >= DEPTH_MAX:
                self._decided_by = index
                return common
            part = self._other_part(common, index, mask, is_allowed, depth + 1)
            if part is not None:
                if self._decided_by == NO_RULE:
                    self._decided_by = index
                return part
        part = uncovered(wanted, same)
        self._decided_by = last if part is None else NO_RULE
        return part

    def _rule(self, index: int) -> Rule | None:
        return None if index == NO_RULE else self.rules[index]

    def _verdict(self, index: int) -> Verdict:
        rule = self._rule(index)
        return Verdict(rule is not None and rule.is_allowed, rule)


def _keep(known: dict[str, bool], key: str, answer: bool, count_max: int) -> None:
    """Keep an answer for the next time; what is full starts afresh."""
    if len(key) <= CACHED_CHARACTERS_MAX:
        if len(known) >= count_max:
            known.clear()
        known[key] = answer
