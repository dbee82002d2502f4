"""Which client identifiers a user may have."""

import pytest

from holdfast.auth.chain import Chain
from holdfast.auth.client_ids import ClientIdPattern, ClientIdRule, ClientIdRules
from holdfast.auth.link import Answer, Link
from holdfast.broker.authentication import AuthRequest, grant
from holdfast.broker.identity import Identity
from holdfast.errors import UsageError
from holdfast.protocol.packets import Connect
from tests.broker.world import World


def fits(pattern: str, client_id: str, user_name: str | None = "ada", **attributes: str) -> bool:
    return ClientIdPattern(pattern).fits(client_id, Identity(user_name, attributes=attributes))


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("meter", ["meter"], ["", "meter7", "Meter", "mete"]),
        ("%u", ["ada"], ["", "ad", "adam", "%u"]),
        ("%u:*", ["ada:", "ada:1", "ada:1:2"], ["ada", "adam:1", "x:ada:1"]),
        ("*", ["", "anything", "\n"], []),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("*-%u-*", ["-ada-", "x-ada-y"], ["ada", "x-ada", "-adam-"]),
        ("a*b*c*d", ["abcd", "a1b2c3d", "abcbcd"], ["abd", "acbd", "abcdx"]),
        ("%a{site}/%u", ["7/ada"], ["/ada", "7/", "%a{site}/ada"]),
        ("100%%", ["100%"], ["100%%", "100"]),
    ],
)
def test_patterns(pattern: str, good: list[str], bad: list[str]) -> None:
    assert [name for name in good if not fits(pattern, name, site="7")] == []
    assert [name for name in bad if fits(pattern, name, site="7")] == []


def test_a_value_is_no_pattern() -> None:
    assert not fits("%u-1", "anybody-1", "*")
    assert fits("%u-1", "*-1", "*")
    assert not fits("%u", "root", "%a{x}", x="root")


@pytest.mark.parametrize("user_name", [None, ""])
def test_what_a_user_has_not_fits_nothing(user_name: str | None) -> None:
    assert not fits("%u", "", user_name)
    assert not fits("%u*", "x", user_name)
    assert not fits("%a{site}*", "x")
    assert not fits("%a{site}*", "x", site="")
    assert fits("x", "x", user_name)


@pytest.mark.parametrize("pattern", ["", "%", "a%", "%x", "%a", "%a{", "%a{}", "%a{{}}", "%c"])
def test_wrong_patterns(pattern: str) -> None:
    with pytest.raises(UsageError, match="expected a client id with"):
        ClientIdPattern(pattern)


def test_the_longest_identifiers_are_compared_at_once() -> None:
    assert not fits("*a" * 300 + "b", "a" * 65_535)


def rule(users: str, client_ids: str, *, is_reserved: bool = False) -> ClientIdRule:
    patterns = tuple(ClientIdPattern(text) for text in client_ids.split())
    return ClientIdRule(tuple(users.split()), patterns, is_reserved)


RULES = ClientIdRules(
    [
        rule("billing", "billing billing-2", is_reserved=True),
        rule("root", "*"),
        rule("meter-*", "%u"),
        rule("guest-* *-guest", "tmp-* auto-*"),
    ]
)


@pytest.mark.parametrize(
    ("user_name", "client_id", "complaint"),
    [
        ("billing", "billing", ""),
        ("billing", "billing-2", ""),
        ("billing", "other", "this user may not use this client id"),
        ("ada", "billing", "this client id is reserved for others"),
        ("root", "billing-2", "this client id is reserved for others"),
        (None, "billing", "this client id is reserved for others"),
        ("root", "meter-7", ""),
        ("meter-7", "meter-7", ""),
        ("meter-7", "meter-8", "this user may not use this client id"),
        ("ada-guest", "tmp-1", ""),
        ("guest-1", "meter-8", "this user may not use this client id"),
        ("ada", "meter-8", ""),  # no rule is about her
        (None, "meter-8", ""),
    ],
)
def test_the_first_rule_about_a_user_decides(
    user_name: str | None, client_id: str, complaint: str
) -> None:
    assert RULES.complaint(client_id, Identity(user_name)) == complaint


def test_anonymous_clients_are_in_the_rule_about_all() -> None:
    rules = ClientIdRules([rule("a*", "x"), rule("*", "anon-*")])
    assert rules.complaint("anon-1", Identity(None)) == ""
    assert rules.complaint("x", Identity(None)) != ""


class Trusting(Link):
    """Believes every name."""

    def step(self, request: AuthRequest) -> Answer:
        return grant()


@pytest.mark.spec("MQTT5-3.1.3-8", "MQTT311-3.1.3-9")
@pytest.mark.parametrize(("version", "code"), [(5, 0x85), (4, 2)])
def test_a_client_with_the_identifier_of_another_is_refused(version: int, code: int) -> None:
    rules = ClientIdRules([rule("*", "%u:*")])
    world = World(authenticator=Chain([Trusting("trusting")], client_ids=rules))

    def connect(client_id: str, user_name: str) -> list[str]:
        client = world.dial(version)
        client.send(Connect(client_id, version, True, 0, None, user_name, b"1"))
        return client.received()

    owner = world.dial(version)
    owner.send(Connect("ada:1", version, True, 0, None, "ada", b"1"))
    assert owner.received() == ["CONNACK 0x00"]
    assert connect("ada:1", "bob") == [f"CONNACK 0x{code:02X}"]
    assert connect("", "bob") == [f"CONNACK 0x{code:02X}"]  # it would get one that is not its own
    assert connect("bob:1", "bob") == ["CONNACK 0x00"]
    assert owner.received() == []
    assert [event.text for event in world.events if "refused" in event.text] == [
        "refused: Client Identifier not valid (this user may not use this client id)"
    ] * 2
