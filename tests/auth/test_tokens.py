"""Tokens: which are taken, what becomes of their claims, and the attacks on them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.auth import tokens
from holdfast.auth.chain import Chain
from holdfast.auth.link import NOT_MINE, Answer
from holdfast.auth.token_keys import Key, is_signed
from holdfast.auth.tokens import TokenLink
from holdfast.broker.authentication import GRANT, REFUSE, AuthReply, AuthRequest
from holdfast.broker.identity import Identity
from holdfast.broker.permissions import Permissions
from holdfast.config import load_settings
from holdfast.config.authenticators import JwtSettings
from holdfast.errors import ConfigError
from tests.support.tokens import (
    Private,
    encoded,
    jwk,
    jwks,
    part,
    pem,
    signature,
    signed,
    token,
)

NOW_S = 1_700_000_000
SECRET = bytes(range(64))
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()

ADA = {"sub": "ada", "exp": NOW_S + 100}
RIGHT = token(ADA, ED25519, "EdDSA")

Make = Callable[..., TokenLink]


class Clock:
    """Unix time in seconds, which stands still."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Make:
    """Make a link with the public keys of this module, or with what is given."""

    def made(**values: object) -> TokenLink:
        files = {"public_key_file", "secret_file", "jwks_file"}
        if files.isdisjoint(values):
            values["public_key_file"] = pem(ED25519) + pem(RSA) + pem(P256)
        for name in files & values.keys():
            content = values[name]
            assert isinstance(content, bytes)
            (tmp_path / name).write_bytes(content)
            values[name] = tmp_path / name
        values = {"kind": "jwt", "algorithms": ("EdDSA", "RS256", "ES256")} | values
        link = TokenLink(JwtSettings.model_validate(values), clock)
        link.reload()
        return link

    return made


def shown(
    link: TokenLink,
    data: bytes | None,
    *,
    method: str | None = None,
    client_id: str = "c",
    user_name: str | None = None,
) -> Answer:
    """Show a token, as the password if there is no method."""
    auth_data, password = (None, data) if method is None else (data, None)
    return link.step(
        AuthRequest(method, auth_data, client_id, user_name, password, "192.0.2.1:1", False, None)
    )


def identity(answer: Answer) -> Identity:
    assert isinstance(answer, AuthReply)
    assert answer.kind == GRANT, answer.reason
    assert answer.identity is not None
    return answer.identity


def reason(answer: Answer) -> str:
    assert isinstance(answer, AuthReply)
    assert (answer.kind, answer.data, answer.identity) == (REFUSE, None, None)
    return answer.reason


# What is taken.


@pytest.mark.parametrize(
    ("key", "algorithm"), [(ED25519, "EdDSA"), (RSA, "RS256"), (P256, "ES256")]
)
def test_a_token_is_a_password(make: Make, key: Private, algorithm: str) -> None:
    found = identity(shown(make(), token(ADA, key, algorithm)))
    assert (found.user_name, found.roles, found.attributes) == ("ada", (), {})
    assert found.expires_at_ms == (NOW_S + 100 + 10) * 1000


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_signs_too(make: Make, algorithm: str) -> None:
    link = make(algorithms=(algorithm,), secret_file=SECRET + b"\n")
    assert identity(shown(link, token(ADA, SECRET, algorithm))).user_name == "ada"
    assert "not signed" in reason(shown(link, token(ADA, SECRET + b"\n", algorithm)))


@pytest.mark.parametrize("method", ["JWT", "OAUTH2"])
@pytest.mark.parametrize("before", [b"", b"Bearer ", b"bearer  "])
def test_a_token_is_the_data_of_a_method(make: Make, method: str, before: bytes) -> None:
    assert identity(shown(make(), before + RIGHT, method=method)).user_name == "ada"


def test_what_is_before_a_token_is_before_it(make: Make) -> None:
    for data in (RIGHT[:9] + b"Bearer " + RIGHT[9:], b"Bearer Bearer " + RIGHT, b"Bearer" + RIGHT):
        assert reason(shown(make(), data, method="OAUTH2")) == NOT_ONE


def test_methods_have_the_names_that_they_are_given(make: Make) -> None:
    link = make(methods=("K8S",), as_password=False)
    assert link.methods == {"K8S"}
    assert identity(shown(link, RIGHT, method="K8S")).user_name == "ada"
    assert shown(link, RIGHT, method="JWT") is NOT_MINE
    assert shown(link, RIGHT) is NOT_MINE


@pytest.mark.parametrize(
    "password", [None, b"", b"secret", b"a.b.c", b"eyJ.b", b"ey.b.c.d", b"e\xff.b.c", RIGHT + b"\n"]
)
def test_a_password_that_is_no_token_is_not_ours(make: Make, password: bytes | None) -> None:
    assert shown(make(), password) is NOT_MINE


def test_keys_are_found_by_their_name(make: Make) -> None:
    link = make(jwks_file=jwks(jwk(ED25519, "a"), jwk(OTHER, "b")))
    assert identity(shown(link, token(ADA, ED25519, "EdDSA", "a"))).user_name == "ada"
    assert identity(shown(link, token(ADA, OTHER, "EdDSA", "b"))).user_name == "ada"
    assert identity(shown(link, token(ADA, OTHER, "EdDSA"))).user_name == "ada"
    assert "not signed" in reason(shown(link, token(ADA, OTHER, "EdDSA", "a")))
    assert "not signed" in reason(shown(link, token(ADA, OTHER, "EdDSA", "c")))


# Attacks.

CLAIMS = part(ADA)
PUBLIC = pem(RSA)


def unsigned(header: object, ending: str = ".") -> bytes:
    return f"{part(header)}.{CLAIMS}{ending}".encode()


def with_header(**header: object) -> bytes:
    return token(ADA, ED25519, "EdDSA", **header)


NOT_ALLOWED = "the algorithm of the token is not allowed"
NOT_SIGNED = "the token is not signed with a key that is known"
NOT_ONE = "expected a signed JSON Web Token"
EXTENSION = "the token needs an extension that is not supported"

NO_TIMES: list[object] = [True, "9999999999", 0, -1, 1e15, [NOW_S], {}]

ATTACKS: dict[str, tuple[bytes, str]] = (
    {
        "none": (unsigned({"alg": "none"}), NOT_ALLOWED),
        "None": (unsigned({"alg": "None"}), NOT_ALLOWED),
        "none, signed": (token(ADA, ED25519, "EdDSA", alg="none"), NOT_ALLOWED),
        "no algorithm": (unsigned({"typ": "JWT"}), NOT_ALLOWED),
        "an algorithm of another type": (unsigned({"alg": ["EdDSA"]}), NOT_ALLOWED),
        "no signature": (unsigned({"alg": "EdDSA"}), NOT_SIGNED),
        "the public key as a secret": (token(ADA, PUBLIC, "HS256"), NOT_ALLOWED),
        "the algorithm of another key": (token(ADA, ED25519, "EdDSA", alg="RS256"), NOT_SIGNED),
        "not allowed, but right": (token(ADA, RSA, "RS512"), NOT_ALLOWED),
        "another key": (token(ADA, OTHER, "EdDSA"), NOT_SIGNED),
        "a key in the header": (token(ADA, OTHER, "EdDSA", jwk=jwk(OTHER)), NOT_SIGNED),
        "a URL in the header": (token(ADA, OTHER, "EdDSA", jku="http://127.0.0.1:9/"), NOT_SIGNED),
        "a file as kid": (token(ADA, OTHER, "EdDSA", "../../dev/null"), NOT_SIGNED),
        "SQL as kid": (token(ADA, OTHER, "EdDSA", "' OR 1=1 --"), NOT_SIGNED),
        "a long kid": (with_header(kid="k" * 257), "the token names its key in no usable way"),
        "an empty kid": (with_header(kid=""), "the token names its key in no usable way"),
        "a kid of another type": (with_header(kid=[1]), "the token names its key in no usable way"),
        "crit": (with_header(crit=["exp"]), EXTENSION),
        "an empty crit": (with_header(crit=[]), EXTENSION),
        "b64": (with_header(b64=False, crit=["b64"]), EXTENSION),
        "zip": (with_header(zip="DEF"), EXTENSION),
        "claims of another": (
            RIGHT.replace(part(ADA).encode(), part(ADA | {"sub": "root"}).encode()),
            NOT_SIGNED,
        ),
        "a name twice": (
            signed(
                {"alg": "EdDSA"}, '{"sub":"ada","exp":9999999999,"sub":"root"}', ED25519, "EdDSA"
            ),
            NOT_ONE,
        ),
        "a name twice in the header": (
            signed('{"alg":"EdDSA","alg":"none"}', ADA, ED25519, "EdDSA"),
            NOT_ONE,
        ),
        "wrong UTF-8": (
            f"{part({'alg': 'EdDSA'})}.{encoded(bytes([0x7B, 0xFF, 0x7D]))}.".encode(),
            NOT_ONE,
        ),
        "a list": (signed({"alg": "EdDSA"}, [1], ED25519, "EdDSA"), NOT_ONE),
        "deep": (signed({"alg": "EdDSA"}, '{"a":' * 1000, ED25519, "EdDSA"), NOT_ONE),
        "NaN": (signed({"alg": "EdDSA"}, '{"exp":NaN}', ED25519, "EdDSA"), NOT_ONE),
        "many digits": (
            signed({"alg": "EdDSA"}, '{"exp":' + "9" * 5000 + "}", ED25519, "EdDSA"),
            NOT_ONE,
        ),
        "a large number": (signed({"alg": "EdDSA"}, '{"exp":1e999}', ED25519, "EdDSA"), NOT_ONE),
        "huge": (token(ADA | {"pad": "x" * 8000}, ED25519, "EdDSA"), "the token is too long"),
        "expired": (token(ADA | {"exp": NOW_S - 11}, ED25519, "EdDSA"), "the token has expired"),
        "not yet": (
            token(ADA | {"nbf": NOW_S + 11}, ED25519, "EdDSA"),
            "the token is not valid yet",
        ),
        "of later": (
            token(ADA | {"iat": NOW_S + 11}, ED25519, "EdDSA"),
            "the token is not valid yet",
        ),
        "no end": (
            token({"sub": "ada"}, ED25519, "EdDSA"),
            "the token has not all claims that are required",
        ),
        "null as the end": (
            token({"sub": "ada", "exp": None}, ED25519, "EdDSA"),
            "the token has not all claims that are required",
        ),
        "for somebody else": (
            token(ADA | {"aud": "shop"}, ED25519, "EdDSA"),
            "the token is for another audience",
        ),
        "no user": (token({"exp": NOW_S + 9}, ED25519, "EdDSA"), "the token has no user name"),
    }
    | {
        f"{claim} {value!r}": (
            token(ADA | {claim: value}, ED25519, "EdDSA"),
            "a time of the token is none",
        )
        for claim in ("exp", "nbf", "iat")
        for value in NO_TIMES
    }
    | {
        f"sub {value!r}": (
            token(ADA | {"sub": value}, ED25519, "EdDSA"),
            "the claim sub of the token is no usable text",
        )
        for value in ("", 7, ["ada"], "a\nb", "a\0", "\ud800", "x" * 257)
    }
)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused(make: Make, name: str) -> None:
    attack, complaint = ATTACKS[name]
    link = make()
    for method, code in ((None, 0x86), ("JWT", 0x87)):
        answer = shown(link, attack, method=method)
        assert reason(answer) == complaint
        assert isinstance(answer, AuthReply)
        assert answer.reason_code == code
    assert identity(shown(link, RIGHT)).user_name == "ada"


def test_a_public_key_is_no_secret_where_both_are_allowed(make: Make) -> None:
    link = make(algorithms=("HS256", "RS256"), secret_file=SECRET, public_key_file=PUBLIC)
    for forged in (PUBLIC, PUBLIC.strip(), b""):
        assert reason(shown(link, token(ADA, forged, "HS256"))) == NOT_SIGNED
    assert identity(shown(link, token(ADA, SECRET, "HS256"))).user_name == "ada"
    assert identity(shown(link, token(ADA, RSA, "RS256"))).user_name == "ada"


def test_a_signature_is_written_in_one_way_alone(make: Make) -> None:
    """What decodes to the same bytes is another token, so that none can be told from its twin."""
    head, _, last = RIGHT.rpartition(b".")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = last[:-1] + bytes([alphabet[alphabet.index(last[-1]) ^ 1]])
    link = make()
    assert reason(shown(link, head + b"." + twin)) == NOT_ONE
    assert reason(shown(link, RIGHT + b"=", method="JWT")) == NOT_ONE
    assert reason(shown(link, b" " + RIGHT, method="JWT")) == NOT_ONE


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_data_of_a_method_is_refused(make: Make, data: bytes) -> None:
    for method in ("JWT", "OAUTH2"):
        assert reason(shown(make(), data, method=method)) != ""


SEGMENT = st.binary(max_size=60).map(encoded) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
).map(lambda value: encoded(json.dumps(value).encode("utf-8", "surrogatepass")))


@given(SEGMENT, SEGMENT, st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_parts_are_refused(make: Make, header: str, claims: str, is_ours: bool) -> None:
    link = make()
    if is_ours:
        header = part({"alg": "EdDSA"})
    content = f"{header}.{claims}"
    made = f"{content}.{encoded(signature(content.encode(), ED25519, 'EdDSA'))}".encode()
    assert reason(shown(link, made, method="JWT")) != ""


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_token_with_any_byte_changed_is_refused(make: Make, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(RIGHT) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != RIGHT[index]))
    changed = RIGHT[:index] + bytes([byte]) + RIGHT[index + 1 :]
    assert reason(shown(make(), changed, method="JWT")) != ""


def test_nothing_of_a_token_is_shown(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    link = make(secret_file=SECRET, algorithms=("HS256",))
    secret_claims = ADA | {"sub": "hush", "exp": NOW_S - 100, "iss": "whisper"}
    for made in (token(secret_claims, SECRET, "HS256"), token(secret_claims, SECRET[1:], "HS256")):
        answer = shown(link, made)
        for text in ("hush", "whisper", *made.decode().split(".")):
            assert text not in f"{reason(answer)} {answer!r} {link!r} {caplog.text}"


# Claims.


def test_times_are_looked_at_with_leeway(make: Make, clock: Clock) -> None:
    link = make(leeway_s=5)
    made = token({"sub": "ada", "exp": NOW_S, "nbf": NOW_S + 5, "iat": NOW_S}, ED25519, "EdDSA")
    assert identity(shown(link, made)).expires_at_ms == (NOW_S + 5) * 1000
    clock.now_s = NOW_S + 4.9
    assert identity(shown(link, made)).user_name == "ada"
    clock.now_s = NOW_S + 5
    assert reason(shown(link, made)) == "the token has expired"
    clock.now_s = NOW_S - 0.1
    assert reason(shown(link, made)) == "the token is not valid yet"


def test_a_token_without_an_end_is_taken_if_that_is_allowed(make: Make) -> None:
    link = make(required_claims=("jti",))
    assert (
        identity(shown(link, token({"sub": "a", "jti": "1"}, ED25519, "EdDSA"))).expires_at_ms == 0
    )
    assert "required" in reason(shown(link, RIGHT))


@pytest.mark.parametrize(
    ("audience", "is_taken"),
    [
        (None, False),
        ("mqtt", True),
        (["shop", "mqtt"], True),
        ("shop", False),
        (["shop"], False),
        ([], False),
        (7, False),
        ({"mqtt": 1}, False),
        ([["mqtt"]], False),
        ("MQTT", False),
    ],
)
def test_the_audience_has_to_be_ours(make: Make, audience: object, is_taken: bool) -> None:
    made = token(ADA | ({} if audience is None else {"aud": audience}), ED25519, "EdDSA")
    answer = shown(make(audience=("mqtt", "broker")), made)
    assert isinstance(answer, AuthReply)
    assert (answer.kind == GRANT) == is_taken


def test_a_token_of_another_issuer_is_not_ours(make: Make) -> None:
    link = make(issuers=("https://id.example.org",))
    ours = token(ADA | {"iss": "https://id.example.org"}, ED25519, "EdDSA")
    assert identity(shown(link, ours)).user_name == "ada"
    others: list[object] = ["https://id.example.com", "", 7, ["https://id.example.org"], None, {}]
    for issuer in others:
        for method in (None, "JWT"):
            made = token(ADA | {"iss": issuer}, OTHER, "EdDSA")
            assert shown(link, made, method=method) is NOT_MINE
    forged = token(ADA | {"iss": "https://id.example.org"}, OTHER, "EdDSA")
    assert reason(shown(link, forged)) == NOT_SIGNED


def test_claims_become_the_identity(make: Make) -> None:
    link = make(
        user_name_claim="email",
        roles_claim="realm_access.roles",
        attributes={
            "tenant": "https://example.org/tenant",
            "site": "place.site",
            "no": "not.there",
        },
    )
    claims = ADA | {
        "email": "ada@example.org",
        "realm_access": {"roles": ["reader", "writer"]},
        "https://example.org/tenant": "north",
        "place": {"site": "Oslo 2"},
    }
    found = identity(shown(link, token(claims, ED25519, "EdDSA")))
    assert found.user_name == "ada@example.org"
    assert found.roles == ("reader", "writer")
    assert found.attributes == {"tenant": "north", "site": "Oslo 2"}


@pytest.mark.parametrize(
    ("scope", "roles"), [("a b", ("a", "b")), ("", ()), ([], ()), (None, ()), (["a b"], ("a b",))]
)
def test_roles_are_a_list_or_words(make: Make, scope: object, roles: tuple[str, ...]) -> None:
    made = token(ADA | {"scope": scope}, ED25519, "EdDSA")
    assert identity(shown(make(roles_claim="scope"), made)).roles == roles


@pytest.mark.parametrize("scope", [7, {}, [7], ["a", None], [""], ["a\n"], ["x"] * 257, True])
def test_other_roles_are_refused(make: Make, scope: object) -> None:
    made = token(ADA | {"scope": scope}, ED25519, "EdDSA")
    assert reason(shown(make(roles_claim="scope"), made)).startswith("the claim scope of the token")


@pytest.mark.parametrize("value", [7, ["north"], "", "a\tb", "x" * 1025, True, {}])
def test_an_attribute_is_a_text(make: Make, value: object) -> None:
    made = token(ADA | {"tenant": value}, ED25519, "EdDSA")
    link = make(attributes={"t": "tenant"})
    assert reason(shown(link, made)) == "the claim tenant of the token is no usable text"


@pytest.mark.parametrize(
    ("claim", "complaint"),
    [
        ("c", ""),
        ("d", "the token is for another client identifier"),
        (None, "the token has no client identifier"),
        (["c"], "the claim client_id of the token is no usable text"),
    ],
)
def test_a_token_can_be_bound_to_a_client(make: Make, claim: object, complaint: str) -> None:
    link = make(client_id_claim="client_id")
    answer = shown(link, token(ADA | {"client_id": claim}, ED25519, "EdDSA"))
    if complaint:
        assert reason(answer) == complaint
    else:
        assert identity(answer).user_name == "ada"
        # What was verified before is bound as well.
        again = shown(link, token(ADA | {"client_id": claim}, ED25519, "EdDSA"), client_id="d")
        assert reason(again) == "the token is for another client identifier"


RULES = [
    {"allow": ["publish"], "topics": ["meters/%c/up", "by/%a{tenant}/#"]},
    {"deny": ["all"], "topics": ["rooms/secret"]},
    {"allow": ["subscribe", "receive"], "topics": ["rooms/+"], "clients": ["c*"]},
]


def permissions(link: TokenLink, claims: object, client_id: str = "c") -> Permissions | None:
    """What a token gives where there is no ACL file."""
    made = token(claims, ED25519, "EdDSA")
    request = AuthRequest("JWT", made, client_id, None, None, "192.0.2.1:1", False, None)
    reply = Chain([link]).step(request)
    assert reply.kind == GRANT, reply.reason
    return reply.permissions


def test_rules_of_a_token_are_those_of_its_client(make: Make) -> None:
    link = make(acl_claim="acl", attributes={"tenant": "tenant"})
    found = permissions(link, ADA | {"acl": RULES, "tenant": "north"})
    assert found is not None
    assert found.may_publish("meters/c/up", False)
    assert not found.may_publish("meters/d/up", False)
    assert found.may_publish("by/north/1", False)
    assert not found.may_publish("by/south/1", False)
    assert found.may_receive("rooms/kitchen")
    assert not found.may_receive("rooms/secret")
    other = permissions(link, ADA | {"acl": RULES}, "d")
    assert other is not None
    assert not other.may_receive("rooms/kitchen")
    assert not other.may_publish("by/north/1", False)


def test_a_token_without_rules_allows_nothing_by_itself(make: Make) -> None:
    for claims in (ADA, ADA | {"acl": None}, ADA | {"acl": []}):
        found = permissions(make(acl_claim="acl"), claims)
        assert found is not None
        assert not found.may_publish("t", False)
        assert permissions(make(), claims) is None


@pytest.mark.parametrize(
    "rules",
    [
        "all",
        {"allow": ["publish"], "topics": ["t"]},
        ["publish"],
        [{}],
        [{"allow": ["publish"]}],
        [{"allow": ["publish"], "deny": ["publish"], "topics": ["t"]}],
        [{"allow": ["hush"], "topics": ["t"]}],
        [{"allow": "publish", "topics": "a/#/b"}],
        [{"allow": [7], "topics": ["t"]}],
        [{"allow": ["publish"], "topics": [None]}],
        [{"allow": ["publish"], "topics": ["t"], "hush": 1}],
        [{"allow": ["publish"], "topics": ["t"], "groups": ["hush"]}],
        [{"allow": ["publish"], "topics": ["%a{"]}],
        [{"allow": ["publish"], "topics": ["t"]}] * 257,
        7,
        True,
    ],
)
def test_rules_that_are_none_are_refused_and_not_repeated(make: Make, rules: object) -> None:
    link = make(acl_claim="acl", token_bytes_max=65_535)
    said = reason(shown(link, token(ADA | {"acl": rules}, ED25519, "EdDSA")))
    assert said.startswith("the claim acl of the token is no list of ")
    assert "hush" not in said


def test_another_user_name_is_ignored_or_refused(make: Make) -> None:
    assert identity(shown(make(), RIGHT, user_name="jwt")).user_name == "ada"
    strict = make(other_user_name="refuse")
    for name in (None, "ada"):
        assert identity(shown(strict, RIGHT, user_name=name)).user_name == "ada"
    for name in ("jwt", "", "ADA"):
        assert reason(shown(strict, RIGHT, user_name=name)) == "the token is for another user name"


# What is remembered, and what is forgotten.


def test_a_token_is_verified_once(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = 0

    def counted(key: Key, algorithm: str, content: bytes, signature: bytes) -> bool:
        nonlocal verified
        verified += 1
        return is_signed(key, algorithm, content, signature)

    monkeypatch.setattr(tokens, "is_signed", counted)
    link = make(public_key_file=pem(ED25519))
    first = identity(shown(link, RIGHT))
    for _ in range(3):
        assert identity(shown(link, RIGHT)) is not first
    assert verified == 1
    assert reason(shown(link, RIGHT[:-1])) == NOT_ONE
    assert reason(shown(link, token(ADA, OTHER, "EdDSA"))) == NOT_SIGNED
    assert reason(shown(link, token(ADA, OTHER, "EdDSA"))) == NOT_SIGNED
    assert verified == 3
    clock.now_s = NOW_S + 200
    assert reason(shown(link, RIGHT)) == "the token has expired"
    link.reload()
    clock.now_s = NOW_S
    assert identity(shown(link, RIGHT)).user_name == "ada"
    assert verified == 4


def test_few_tokens_are_remembered(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CACHED_TOKENS_MAX", 3)
    link = make()
    made = [token(ADA | {"jti": n}, ED25519, "EdDSA") for n in range(5)]
    for each in (*made, made[2], *made):
        identity(shown(link, each))
    assert len(link._cache) == 3
    assert link._cached_bytes == sum(len(each) for each in made[2:])
    monkeypatch.setattr(tokens, "CACHED_BYTES_MAX", len(made[0]))
    identity(shown(link, made[0]))
    assert len(link._cache) == 1
    assert RIGHT not in link._cache  # digests alone


def test_a_key_that_is_withdrawn_takes_its_clients_along(make: Make, tmp_path: Path) -> None:
    link = make(public_key_file=pem(ED25519) + pem(OTHER))
    request = AuthRequest(None, None, "c", None, None, "192.0.2.1:1", False, None)
    granted = {
        name: identity(shown(link, token(ADA, key, "EdDSA")))
        for name, key in {"stays": ED25519, "goes": OTHER}.items()
    }
    (tmp_path / "public_key_file").write_bytes(pem(P256) + pem(ED25519))
    link.reload()
    assert identity(link.renew(request, granted["stays"])) is granted["stays"]
    assert reason(link.renew(request, granted["goes"])) == "the key of the token has been withdrawn"
    assert reason(shown(link, token(ADA, OTHER, "EdDSA"))) == NOT_SIGNED
    assert identity(shown(link, RIGHT)).user_name == "ada"


# Settings.


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ('algorithms = ["HS256"]', "one of secret_file, public_key_file, jwks_file and jwks_url"),
        (
            'algorithms = ["RS256"]\nsecret_file = "x"',
            "HS256, HS384 or HS512 in algorithms, for secret_file",
        ),
        (
            'algorithms = ["HS256"]\nsecret_file = "x"\npublic_key_file = "x"',
            (
                "an algorithm of public keys in algorithms, such as ES256, for public_key_file "
                "and jwks_url"
            ),
        ),
        (
            'algorithms = ["HS256", "ES256"]\npublic_key_file = "x"',
            "secret_file or jwks_file, for HS256, HS384 and HS512",
        ),
        (
            'algorithms = ["HS256", "ES256"]\nsecret_file = "x"',
            "public_key_file, jwks_file or jwks_url, for the algorithms of public keys",
        ),
        (
            'algorithms = ["ES256"]\njwks_file = "x"\njwks_ca_file = "x"',
            "jwks_url, for jwks_ca_file",
        ),
        (
            'algorithms = ["ES256"]\njwks_file = "x"\nas_password = false\nmethods = []',
            "as_password = true, or methods",
        ),
        ('algorithms = ["HS256", "ES256"]\njwks_file = "x"', ""),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    tmp_path: Path, toml: str, expected: str
) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(f'[[authenticators]]\nkind = "jwt"\n{toml}\n')
    if not expected:
        assert len(load_settings(config_file=file).authenticators) == 1
        return
    with pytest.raises(ConfigError) as caught:
        load_settings(config_file=file)
    assert str(caught.value) == f"{file}: authenticators[0]: expected {expected}"


@pytest.mark.parametrize(
    ("url", "is_taken"),
    [
        ("https://id.example.org", True),
        ("https://id.example.org:8443/keys?x=1", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://[::1]/keys", True),
        ("http://localhost/keys", True),
        ("http://id.example.org/keys", False),
        ("http://127.0.0.1.example.org/keys", False),
        ("http://localhost.example.org/", False),
        ("http://10.0.0.1/", False),
        ("https://user@id.example.org/", False),
        ("https://", False),
        ("https:///keys", False),
        ("https://id.example.org:0/", False),
        ("https://id.example.org:99999/", False),
        ("https://id.example.org/#keys", False),
        ("https://id.example.org/a b", False),
        ("https://id.example.org/\u00e9", False),
        ("file:///etc/passwd", False),
        ("ftp://127.0.0.1/", False),
        ("id.example.org", False),
        ("", False),
    ],
)
def test_keys_are_fetched_from_where_nobody_can_meddle(url: str, is_taken: bool) -> None:
    values = {"kind": "jwt", "algorithms": ("ES256",), "jwks_url": url}
    if is_taken:
        assert JwtSettings.model_validate(values).jwks_url == url
    else:
        with pytest.raises(ValidationError, match="an https URL"):
            JwtSettings.model_validate(values)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"secret_file": b"short", "algorithms": ("HS256",)}, "secret_file: expected a secret of"),
        ({"public_key_file": b"x"}, "public_key_file: expected 1 to 256 public keys as PEM"),
        ({"jwks_file": b"{}"}, "jwks_file: expected a JWK Set with keys"),
        (
            {"public_key_file": pem(RSA), "algorithms": ("ES256",)},
            "expected a key for one of ES256",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused_and_the_old_ones_stay(
    make: Make, tmp_path: Path, values: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make(**values)
    link = make()
    (tmp_path / "public_key_file").unlink()
    with pytest.raises(ConfigError, match="public_key_file: cannot be read: No such file"):
        link.reload()
    assert identity(shown(link, RIGHT)).user_name == "ada"
    (tmp_path / "public_key_file").write_bytes(bytes(1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="public_key_file: expected at most 1048576 bytes"):
        link.reload()
