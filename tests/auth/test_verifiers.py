"""SCRAM verifiers: how they are made, and of what."""

import pytest

from holdfast.auth.password_file import SCRAM_ITERATIONS_MIN, parse_scram
from holdfast.auth.verifiers import METHODS, SALT_BYTES, new_verifier, prepared
from tests.support.scram import HASHES, made


@pytest.mark.parametrize("method", METHODS)
def test_a_verifier_is_that_of_the_standard(method: str) -> None:
    verifier = new_verifier(method, "pencil", SCRAM_ITERATIONS_MIN)
    assert len(verifier.salt) == SALT_BYTES
    assert verifier == made(method, "pencil", verifier.salt, SCRAM_ITERATIONS_MIN)
    assert new_verifier(method, "pencil", SCRAM_ITERATIONS_MIN).salt != verifier.salt


@pytest.mark.parametrize("method", METHODS)
def test_a_new_verifier_can_be_written_and_read(method: str) -> None:
    verifier = new_verifier(method, "pencil", SCRAM_ITERATIONS_MIN)
    assert parse_scram(str(verifier)) == verifier


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("user", "user"),
        ("USER", "USER"),
        ("I\u00adX", "IX"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
    ],
)
def test_texts_are_prepared_as_rfc_4013_shows(text: str, form: str) -> None:
    assert prepared(text) == form


@pytest.mark.parametrize("text", ["", "\u00ad", "\x07", "\u06271", "\ud800", "\ue000"])
def test_texts_that_saslprep_forbids_are_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a text that SASLprep allows$"):
        prepared(text)
    with pytest.raises(ValueError, match=r"^expected a text that SASLprep allows$"):
        new_verifier("SCRAM-SHA-256", text, SCRAM_ITERATIONS_MIN)


def test_every_method_has_its_hash() -> None:
    assert tuple(HASHES) == METHODS
