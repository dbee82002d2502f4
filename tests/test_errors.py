"""Errors: one root, and the reason codes that their handlers need."""

import pytest

import holdfast
from holdfast import errors
from holdfast.errors import (
    HoldfastError,
    ProtocolError,
    Refused,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreTooNew,
)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_the_one_root_and_is_public(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, HoldfastError)
    assert getattr(holdfast, name) is error


@pytest.mark.parametrize("kind", [ProtocolError, Refused])
def test_an_error_with_a_reason_code_keeps_and_shows_it(
    kind: type[ProtocolError] | type[Refused],
) -> None:
    error = kind(0x81, "remaining length has a fifth byte")
    assert error.reason_code == 0x81
    assert error.detail == "remaining length has a fifth byte"
    with pytest.raises(kind, match=r"^remaining length has a fifth byte \(reason code 0x81\)$"):
        raise error


@pytest.mark.parametrize("kind", [StoreCorrupt, StoreLocked, StoreTooNew])
def test_whoever_catches_store_errors_catches_the_special_ones(kind: type[StoreError]) -> None:
    with pytest.raises(StoreError, match="newer"):
        raise kind("newer")
