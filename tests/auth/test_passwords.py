"""Passwords from a file: right and wrong, remembered, and taken back."""

import os
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from holdfast.auth.link import NOT_MINE, Answer
from holdfast.auth.password_edit import with_user
from holdfast.auth.passwords import MEMORY_KIB, PasswordLink
from holdfast.auth.secret_cache import SecretCache
from holdfast.broker.authentication import GRANT, REFUSE, AuthRequest
from holdfast.broker.identity import Identity
from holdfast.errors import ConfigError

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "passwords"
    file.write_text(f"ada:{CHEAP.hash('secret')}\nbob:{CHEAP.hash(b'b' * 65535)}\n")
    return file


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def link(file: Path, clock: Clock) -> PasswordLink:
    link = PasswordLink("file", file, cache_s=60, clock_s=clock)
    link.reload()
    return link


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that have been verified, which is what takes the time."""
    seen: list[str] = []
    real = PasswordHasher.verify

    def verify(self: PasswordHasher, hash: str | bytes, password: str | bytes) -> bool:
        assert isinstance(hash, str)
        seen.append(hash)
        return real(self, hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    return seen


def request(
    user_name: str | None, password: bytes | None, method: str | None = None
) -> AuthRequest:
    return AuthRequest(method, None, "c", user_name, password, "192.0.2.1:7", False, None)


def is_in(answer: Answer) -> bool:
    return answer is not NOT_MINE and answer.kind == GRANT


def test_right_and_wrong_passwords(link: PasswordLink) -> None:
    for user_name, password in [("ada", b"secret"), ("bob", b"b" * 65535)]:
        answer = link.step(request(user_name, password))
        assert answer is not NOT_MINE
        assert answer.kind == GRANT
        assert answer.identity is not None
        assert answer.identity.user_name == user_name
    for user_name, password in [("ada", b"Secret"), ("ada", b""), ("bob", b"b" * 65534)]:
        answer = link.step(request(user_name, password))
        assert answer is not NOT_MINE
        assert (answer.kind, answer.reason_code, answer.reason) == (REFUSE, 0x86, "")
        assert answer.detail == "wrong password"


@pytest.mark.parametrize(
    ("user_name", "password", "method"),
    [
        ("joe", b"secret", None),
        ("Ada", b"secret", None),  # names are what they are
        ("ada", None, None),
        (None, b"secret", None),
        (None, None, None),
        ("ada", b"secret", "X"),
    ],
)
def test_what_is_not_its_own(
    link: PasswordLink, user_name: str | None, password: bytes | None, method: str | None
) -> None:
    assert link.step(request(user_name, password, method)) is NOT_MINE


def test_an_unknown_user_costs_a_verification_of_the_usual_cost(
    link: PasswordLink, file: Path, verified: list[str]
) -> None:
    assert link.step(request("joe", b"x")) is NOT_MINE
    assert [hash_.rsplit("$", 2)[0] for hash_ in verified] == ["$argon2id$v=19$m=8,t=1,p=1"]
    file.write_text("")
    link.reload()
    link.step(request("joe", b"x"))
    assert f"m={MEMORY_KIB}," in verified[-1]


def test_a_user_without_a_hash_is_refused(link: PasswordLink, file: Path) -> None:
    verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0$" + "A" * 43 + "=:" + "B" * 42 + "A="
    file.write_text(f"cy:{verifier}\n")
    link.reload()
    answer = link.step(request("cy", b"x"))
    assert answer is not NOT_MINE
    assert (answer.kind, answer.reason_code) == (REFUSE, 0x86)


def test_a_right_password_is_verified_once(
    link: PasswordLink, clock: Clock, verified: list[str]
) -> None:
    for _ in range(10):
        assert is_in(link.step(request("ada", b"secret")))
    assert len(verified) == 1
    clock.now_s += 59
    assert is_in(link.step(request("ada", b"secret")))
    assert len(verified) == 1
    clock.now_s += 1
    assert is_in(link.step(request("ada", b"secret")))
    assert len(verified) == 2


def test_a_wrong_password_is_verified_each_time(link: PasswordLink, verified: list[str]) -> None:
    assert is_in(link.step(request("ada", b"secret")))
    for _ in range(3):
        assert not is_in(link.step(request("ada", b"wrong")))
        assert not is_in(link.step(request("bob", b"secret")))
    assert len(verified) == 7


def test_a_changed_password_is_not_remembered(link: PasswordLink, file: Path) -> None:
    assert is_in(link.step(request("ada", b"secret")))
    file.write_text(f"ada:{CHEAP.hash('new')}\n")
    link.reload()
    assert not is_in(link.step(request("ada", b"secret")))
    assert is_in(link.step(request("ada", b"new")))


def test_who_stays_after_a_change(link: PasswordLink, file: Path) -> None:
    answers = [link.step(request("ada", b"secret")), link.step(request("bob", b"b" * 65535))]
    identities: list[Identity] = []
    for answer in answers:
        assert answer is not NOT_MINE
        assert answer.identity is not None
        identities.append(answer.identity)
    ada, bob = identities

    def stays(identity: Identity) -> bool:
        return is_in(link.renew(request(identity.user_name, None), identity))

    link.reload()
    assert stays(ada) and stays(bob)
    text = file.read_text()
    file.write_text(with_user(text, "ada", [CHEAP.hash("secret")]))  # the same one, set again
    link.reload()
    assert not stays(ada) and stays(bob)
    file.write_text(with_user(text, "bob", []))
    link.reload()
    assert stays(ada) and not stays(bob)


def test_a_wrong_file_leaves_the_users_that_were_there(link: PasswordLink, file: Path) -> None:
    file.write_text("ada:garbage\n")
    with pytest.raises(ConfigError):
        link.reload()
    assert is_in(link.step(request("ada", b"secret")))


def test_a_hash_that_cannot_be_computed_is_no_wrong_password(
    link: PasswordLink, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory for it, for instance: the client is to try again later."""

    def verify(self: PasswordHasher, hash: str, password: bytes) -> bool:
        raise VerificationError("Memory allocation error")

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    with pytest.raises(VerificationError):
        link.step(request("ada", b"secret"))


# What is remembered.


def test_a_cache_has_no_secrets() -> None:
    cache: SecretCache[bool] = SecretCache(seconds=60)
    secret = os.urandom(16)
    cache.put(cache.digest(b"user", secret), True)
    assert cache.get(cache.digest(b"user", secret)) is True
    assert cache.get(cache.digest(b"use", b"r" + secret)) is None
    assert secret not in repr(vars(cache)).encode() and repr(secret) not in repr(vars(cache))
    other: SecretCache[bool] = SecretCache(seconds=60)
    assert other.digest(b"user", secret) != cache.digest(b"user", secret)


def test_a_cache_forgets_the_oldest_and_what_is_over() -> None:
    clock = Clock()
    cache: SecretCache[int] = SecretCache(seconds=10, entries_max=3, clock_s=clock)
    names = [cache.digest(bytes([number])) for number in range(5)]
    for number in range(4):
        cache.put(names[number], number)
    assert [cache.get(name) for name in names] == [None, 1, 2, 3, None]
    cache.put(names[1], 1)
    cache.put(names[4], 4)
    assert [cache.get(name) for name in names] == [None, 1, None, 3, 4]
    clock.now_s += 10
    assert [cache.get(name) for name in names] == [None] * 5
    cache.put(names[0], 0)
    cache.clear()
    assert cache.get(names[0]) is None


def test_a_cache_without_time_keeps_nothing() -> None:
    cache: SecretCache[bool] = SecretCache(seconds=0)
    cache.put(b"name", True)
    assert cache.get(b"name") is None
