"""The ACL file: its rules, for whom they are, its errors, and what names can do to it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.auth.access import AccessControl
from holdfast.auth.access_rules import AccessRule, Subject, TopicTemplate
from holdfast.auth.acl import AclFile, parse_acl, parse_rules, permissions_of, read_acl
from holdfast.auth.anonymous import AnonymousLink
from holdfast.auth.chain import Chain
from holdfast.broker.authentication import GRANT, AuthReply, AuthRequest
from holdfast.broker.permissions import Permissions
from holdfast.errors import ConfigError

FILE = """
[groups]
night = ["ada", "bob"]
empty = []

[roles]
operator = ["@night", "eve-*"]

[[rules]]
deny = ["publish", "retain"]
topics = ["site/locked/#"]

[[rules]]
allow = "all"
topics = ["site/#", "$SYS/#"]
roles = ["operator"]

[[rules]]
allow = ["publish"]
topics = "site/%u/%c/data"
users = ["meter-*"]
listeners = ["field"]

[[rules]]
allow = ["subscribe"]
topics = ["site/%a{region}/alarms"]
clients = ["panel-?"]

[[rules]]
allow = "all"
topics = "secret"
groups = ["empty"]
"""


def granted(subject: Subject, source: str = FILE) -> Permissions:
    return permissions_of(parse_acl(source).rules_for(subject), subject)


def one_rule(topic: str, *, word: str = "allow") -> str:
    return f"[[rules]]\n{word} = 'all'\ntopics = ['{topic}']\n"


def test_rules_are_for_users_roles_clients_and_listeners() -> None:
    operator = granted(Subject("x", "bob"))
    assert operator.may_subscribe("site/#", False) and operator.may_receive("$SYS/broker/uptime")
    assert not operator.may_publish("site/locked/a", False)
    assert operator.may_publish("site/open", True)
    assert granted(Subject("x", "eve-2")).may_publish("site/a", False)
    assert granted(Subject("x", "mallory", roles=("operator",))).may_publish("site/a", False)
    meter = Subject("c7", "meter-1", listener="field")
    assert granted(meter).may_publish("site/meter-1/c7/data", False)
    assert not granted(meter).may_publish("site/meter-1/c8/data", False)
    elsewhere = Subject("c7", "meter-1", listener="office")
    assert not granted(elsewhere).may_publish("site/meter-1/c7/data", False)
    panel = Subject("panel-1", attributes={"region": "north"})
    assert granted(panel).may_subscribe("site/north/alarms", False)
    assert not granted(panel).may_subscribe("site/south/alarms", False)
    assert not granted(Subject("panel-12", attributes={"region": "n"})).rules[1:]


def test_a_group_without_members_is_nobody() -> None:
    for user in ("ada", "", None):
        assert not granted(Subject("c", user)).may_publish("secret", False)


def test_an_empty_file_denies_everything() -> None:
    client = granted(Subject("c", "ada"), "")
    assert not client.may_publish("a", False) and not client.may_subscribe("a", True)


@pytest.mark.parametrize("name", ["a+", "#", "a/b", "+", "", "/"])
def test_a_name_that_would_change_the_filter_allows_nothing_and_denies_all(name: str) -> None:
    subject = Subject("c", name)
    assert granted(subject, one_rule("users/%u/x")).rules == []
    source = one_rule("users/%u/x", word="deny") + one_rule("#")
    client = granted(subject, source)
    assert not client.may_publish("users/anybody/x", False)
    assert not client.may_publish(f"users/{name}/x", False)
    assert client.may_publish("users/anybody/y", False)


def test_an_anonymous_client_has_no_user_name() -> None:
    subject = Subject("c")
    assert granted(subject, one_rule("users/%u/x")).rules == []
    client = granted(subject, one_rule("users/%u/x", word="deny") + one_rule("#"))
    assert not client.may_publish("users/anybody/x", False)
    assert granted(subject, one_rule("x") + "users = ['*']").rules == []


@pytest.mark.parametrize("client_id", ["$SYS", "$SYS/broker", "$share", "$delayed", "$share/g"])
def test_nobody_comes_to_special_topics_by_its_name(client_id: str) -> None:
    client = granted(Subject(client_id), one_rule("%c/#"))
    assert client.rules == []
    for topic in ("$SYS/broker/uptime", "$share/g/a", "a"):
        assert not client.may_receive(topic) and not client.may_subscribe(topic, True)


names = st.text(st.sampled_from("ab/+#$%{}c"), max_size=6)


@given(names, names, st.sampled_from(["%c/#", "x/%c/y", "x/%c-%u", "%u", "%a{k}/+", "x/p%c/#"]))
def test_names_make_no_rule_wider(client_id: str, user_name: str, topic: str) -> None:
    """Whatever a client calls itself: where a placeholder was, its own name stands, alone."""
    subject = Subject(client_id, user_name, attributes={"k": user_name})
    for rule in granted(subject, one_rule(topic)).rules:
        shape = topic.split("/")
        assert len(rule.levels) == len(shape)
        for level, wanted in zip(rule.levels, shape, strict=True):
            if "%" in wanted:
                assert level not in ("+", "#") and level
            else:
                assert level == wanted
        assert not rule.levels[0].startswith("$")


def test_a_percent_sign_is_written_twice() -> None:
    assert granted(Subject("c"), one_rule("100%%/%c")).may_publish("100%/c", False)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("rules = 3", "rules: expected tables, each written [[rules]]"),
        ("[[rule]]", "expected groups, roles or rules, 'rule' came; did you mean rules?"),
        ("groups = 1", "groups: expected a table, written [groups]"),
        ("[groups]\na = 1", "groups.a: expected a list of texts that is not empty"),
        (
            "[roles]\na = ['@nigth']\n[groups]\nnight = ['x']",
            "roles.a: expected a group of [groups], 'nigth' came; did you mean night?",
        ),
        ("[[rules]]\ntopics = ['a']", "rule 1 (line 1): expected either allow or deny"),
        (
            "[[rules]]\nallow = 'all'\ndeny = 'all'\ntopics = 'a'",
            "rule 1 (line 1): expected either allow or deny",
        ),
        ("\n[[rules]]\nallow = ['all']", "rule 1 (line 2): expected topics"),
        (
            one_rule("a") + "\n[[rules]]\nallow = ['pubish']\ntopics = ['a']",
            (
                "rule 2 (line 5): allow: expected publish, subscribe, receive, retain, share or "
                "all, 'pubish' came; did you mean publish?"
            ),
        ),
        (
            "[[rules]]\nallow = 'all'\ntopic = 'a'",
            (
                "rule 1 (line 1): expected allow, deny, topics, users, groups, roles, clients or "
                "listeners, 'topic' came; did you mean topics?"
            ),
        ),
        ("[[rules]]\nallow = []\ntopics = 'a'", "allow: expected a list of texts that is not"),
        ("[[rules]]\nallow = 'all'\ntopics = [1]", "topics: expected a list of texts"),
        ("[[rules]]\nallow = 'all'\ntopics = 'a'\nusers = []", "users: expected a list of texts"),
        (one_rule("a/#/b"), "topics: 'a/#/b': expected '#' alone in the last level"),
        (one_rule("a/b+"), "topics: 'a/b+': expected '+' alone in a level"),
        (one_rule(""), "topics: '': expected a Topic Filter of at least one character"),
        (one_rule("a/%x/b"), "topics: 'a/%x/b': expected %c, %u, %a{name} or %% for a percent"),
        (one_rule("a/%a"), "expected %c, %u, %a{name}"),
        (one_rule("a/%a{b"), "expected %c, %u, %a{name}"),
        (one_rule("$share/g/a"), "the action share is for these"),
        (one_rule("$queue/a"), "the action share is for these"),
        (one_rule("$delayed/5/a"), "expected the topic behind $delayed"),
        ("[[rules]", "not valid TOML: "),
        ("rules = [{allow = 'all'}]", "rule 1: expected topics"),
    ],
)
def test_an_error_says_where_and_what_was_expected(tmp_path: Path, source: str, error: str) -> None:
    file = tmp_path / "acl.toml"
    file.write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_acl(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ") and error in text and "\n" not in text


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_acl(tmp_path / "none.toml")
    (tmp_path / "acl.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        read_acl(tmp_path / "acl.toml")


def test_a_wrong_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "acl.toml"
    acl = AclFile(file)
    subject = Subject("c")
    assert acl.rules(subject) == ()
    file.write_text(one_rule("a"), encoding="utf-8")
    acl.reload()
    before = acl.rules(subject)
    assert len(before) == 1
    file.write_text(one_rule("a/#/b"), encoding="utf-8")
    with pytest.raises(ConfigError):
        acl.reload()
    assert acl.rules(subject) == before
    file.write_text(one_rule("b"), encoding="utf-8")
    acl.reload()
    assert acl.rules(subject)[0].text == "allow all on b"


def test_a_rule_says_what_it_is_in_one_line() -> None:
    texts = [rule.text for rule in parse_acl(FILE).rules]
    assert texts[1:3] == [
        "allow all on site/#, $SYS/#; roles operator",
        "allow publish on site/%u/%c/data; users meter-*; listeners field",
    ]
    assert next(rule.name for rule in parse_acl(FILE).rules) == "rule 1 (line 9)"


def test_clients_share_the_rules_without_placeholders() -> None:
    """Rules are many, and connections too."""
    acl = parse_acl(one_rule("a/#") + one_rule("b/%c"))
    first, second = (
        permissions_of(acl.rules_for(Subject(name)), Subject(name)).rules for name in ("x", "y")
    )
    assert first[0] is second[0]
    assert [rule.topic_filter for rule in (first[1], second[1])] == ["b/x", "b/y"]


class Other:
    """An authorizer beside the file."""

    name = "other"
    files: tuple[Path, ...] = ()

    def __init__(self, rules: tuple[AccessRule, ...] | None) -> None:
        self._rules = rules

    def reload(self) -> None: ...

    def close(self) -> None: ...

    def rules(self, subject: Subject) -> tuple[AccessRule, ...] | None:
        return self._rules


def rule(text: str) -> AccessRule:
    word, topic = text.split()
    return AccessRule(text, word == "allow", ("all",), (TopicTemplate.parse(topic),))


def test_where_nobody_has_a_say_everything_is_allowed() -> None:
    assert AccessControl().permissions(Subject("c"), None) is None
    assert AccessControl([Other(None)]).permissions(Subject("c"), None) is None
    assert AccessControl([Other(())]).permissions(Subject("c"), None) is not None
    assert AccessControl().permissions(Subject("c"), ()) is not None


def test_the_rules_of_all_stand_in_their_order() -> None:
    control = AccessControl([Other((rule("deny a"),)), Other(None), Other((rule("allow #"),))])
    client = control.permissions(Subject("c"), None)
    assert client is not None
    assert not client.may_publish("a", False) and client.may_publish("b", False)
    client = control.permissions(Subject("c"), [rule("allow a")])
    assert client is not None
    assert client.may_publish("a", False) and client.may_publish("b", False)
    alone = AccessControl(control.authorizers, "instead")
    client = alone.permissions(Subject("c"), [rule("allow a")])
    assert client is not None
    assert client.may_publish("a", False) and not client.may_publish("b", False)


def test_rules_of_a_token_have_the_keys_of_the_file() -> None:
    (parsed,) = parse_rules([{"allow": ["publish"], "topics": ["a/%c"]}], "the token")
    assert parsed.name == "rule 1 of the token"
    assert permissions_of([parsed], Subject("c")).may_publish("a/c", False)
    with pytest.raises(ConfigError, match="rule 2 of the token: expected either allow or deny"):
        parse_rules([{"allow": ["publish"], "topics": ["a"]}, {}], "the token")


def test_own_rules_hold_for_whom_they_are_about() -> None:
    words = {"clients": ["c*"], "users": ["ada"], "roles": ["reader"], "listeners": ["inside"]}
    for key, value in words.items():
        rules = parse_rules([{"allow": ["publish"], "topics": ["a"], key: value}], "the token")
        for subject in (
            Subject("c1", "ada", "inside", ("reader",)),
            Subject("d", "bob", "outside", ("writer",)),
        ):
            found = AccessControl().permissions(subject, rules)
            assert found is not None
            assert found.may_publish("a", False) == (subject.client_id == "c1")


class Failing(Other):
    """One that cannot be asked any more, from a moment on."""

    has_failed = False

    def rules(self, subject: Subject) -> tuple[AccessRule, ...] | None:
        if self.has_failed:
            raise RuntimeError("the directory is down")
        return super().rules(subject)


def request(renewed: AuthReply | None = None) -> AuthRequest:
    return AuthRequest(
        *(None, None, "c", None, None, "192.0.2.1:1", False, None),
        renewed=None if renewed is None else renewed.identity,
        permissions=None if renewed is None else renewed.permissions,
    )


def test_an_authorizer_that_fails_lets_nobody_in_and_leaves_who_is_in_as_it_was() -> None:
    failing = Failing((rule("allow a"),))
    chain = Chain([AnonymousLink(is_alone=True)], AccessControl([failing]))
    granted_before = chain.step(request())
    assert granted_before.permissions is not None
    failing.has_failed = True
    renewed = chain.step(request(granted_before))
    assert renewed.kind == GRANT and renewed.permissions is granted_before.permissions
    with pytest.raises(RuntimeError):
        chain.step(request())
