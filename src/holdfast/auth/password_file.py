"""The password file: users and what proves that they are, one line for each.

A line is ``user:CREDENTIAL``, with at most one of each kind for a user::

    ada:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA
    ada:SCRAM-SHA-256$4096:c2FsdHNhbHQ=$U3RvcmVkS2V5:U2VydmVyS2V5

The first is for passwords, as argon2 writes it, the others are for SCRAM, as PostgreSQL writes
them: ``MECHANISM$iterations:salt$StoredKey:ServerKey``. Empty lines and lines that begin with
``#`` mean nothing and are kept. The text is UTF-8; names are compared as they are written.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdfast.errors import ConfigError, UsageError

USER_NAME_CHARACTERS_MAX: Final = 256
FILE_BYTES_MAX: Final = 256 * 1024 * 1024  # some two million users
# What one verification may cost; a line that asks for more would stop the broker.
ARGON2_MEMORY_KIB_MAX: Final = 1024 * 1024
ARGON2_PASSES_MAX: Final = 100
SCRAM_ITERATIONS_MIN: Final = 4096  # RFC 7677
SCRAM_ITERATIONS_MAX: Final = 10_000_000

# The size of the keys of each mechanism, in bytes.
SCRAM_MECHANISMS: Final[dict[str, int]] = {
    "SCRAM-SHA-1": 20,
    "SCRAM-SHA-256": 32,
    "SCRAM-SHA-512": 64,
}

_ARGON2: Final = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,9}),t=([0-9]{1,9}),p=([0-9]{1,3})\$([A-Za-z0-9+/]{11,86})\$"
    r"([A-Za-z0-9+/]{22,86})"
)
_SCRAM: Final = re.compile(r"(SCRAM-SHA-[0-9]{1,3})\$([0-9]{1,8}):([^$:]*)\$([^$:]*):([^$:]*)")


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What proves a user by SCRAM; the password does not follow from it. Source: RFC 5802."""

    mechanism: str
    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def __str__(self) -> str:
        salt, stored, server = (
            base64.b64encode(part).decode()
            for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{self.mechanism}${self.iterations}:{salt}${stored}:{server}"

    @property
    def mark(self) -> str:
        """The same as long as the line is: for ``Identity.mark``."""
        return mark_of(str(self))


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that a file has on one user: the hash of argon2id, "" for none, and SCRAM verifiers."""

    argon2: str = field(default="", repr=False)
    scram: Mapping[str, ScramVerifier] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The same as long as the line with the argon2 hash is: for ``Identity.mark``."""
        return mark_of(self.argon2)


def mark_of(credential: str) -> str:
    """A short name of a credential, from which nothing about it follows."""
    return hashlib.blake2b(credential.encode(), digest_size=16).hexdigest()


def read_password_file(path: Path) -> dict[str, Credentials]:
    """The users of a file. Raises ConfigError, which names the file and the line."""
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The content of a file of this kind. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: expected at most {FILE_BYTES_MAX} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: expected UTF-8") from error


def parse(text: str, title: str) -> dict[str, Credentials]:
    """The users of a text; ``title`` is what errors call it.

    Raises ConfigError, which names the line and what was expected, never what is written there: it
    may be a password.
    """
    argon2: dict[str, str] = {}
    scram: dict[str, dict[str, ScramVerifier]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        try:
            entry = parse_line(line)
            if entry is None:
                continue
            user, credential = entry
            if isinstance(credential, str):
                if user in argon2:
                    raise UsageError("expected one argon2 hash for each user, this is another one")
                argon2[user] = credential
            else:
                verifiers = scram.setdefault(user, {})
                if credential.mechanism in verifiers:
                    raise UsageError(
                        f"expected one line of {credential.mechanism} for each user, this is "
                        "another one"
                    )
                verifiers[credential.mechanism] = credential
        except UsageError as error:
            raise ConfigError(f"{title}, line {number}: {error}") from None
    return {
        user: Credentials(argon2.get(user, ""), scram.get(user, {}))
        for user in argon2.keys() | scram.keys()
    }


def parse_line(line: str) -> tuple[str, str | ScramVerifier] | None:
    """The user and the credential of a line, None if it means nothing. Raises UsageError."""
    line = line.removesuffix("\r")
    if line.strip() == "" or line.startswith("#"):
        return None
    user, colon, credential = line.partition(":")
    if colon == "":
        raise UsageError("expected USER:HASH, there is no colon")
    check_user_name(user)
    if credential.startswith("$argon2id$"):
        return user, _argon2(credential)
    if credential.startswith("SCRAM-"):
        return user, parse_scram(credential)
    raise UsageError(
        "expected a hash that begins with $argon2id$ or SCRAM-, as `holdfast passwd` writes it"
    )


def check_user_name(user: str) -> None:
    """Raises UsageError if a user of this name cannot be."""
    if not 1 <= len(user) <= USER_NAME_CHARACTERS_MAX:
        raise UsageError(f"expected a user name of 1 to {USER_NAME_CHARACTERS_MAX} characters")
    if ":" in user or not user.isprintable():
        raise UsageError("expected a user name without colons and control characters")
    if user.startswith("#"):
        raise UsageError("expected a user name that does not begin with #")
    if user.strip() != user:
        raise UsageError("expected a user name that neither begins nor ends with a space")


def parse_scram(text: str) -> ScramVerifier:
    """A verifier from its text. Raises UsageError."""
    expected = "expected MECHANISM$iterations:salt$StoredKey:ServerKey, the last three in base64"
    match = _SCRAM.fullmatch(text)
    if match is None:
        raise UsageError(expected)
    mechanism = match[1]
    if mechanism not in SCRAM_MECHANISMS:
        raise UsageError(f"expected one of {', '.join(SCRAM_MECHANISMS)}")
    iterations = int(match[2])
    if not SCRAM_ITERATIONS_MIN <= iterations <= SCRAM_ITERATIONS_MAX:
        raise UsageError(
            f"expected {SCRAM_ITERATIONS_MIN} to {SCRAM_ITERATIONS_MAX} iterations of SCRAM"
        )
    try:
        salt, stored, server = (base64.b64decode(match[n], validate=True) for n in (3, 4, 5))
    except binascii.Error:
        raise UsageError(expected) from None
    size = SCRAM_MECHANISMS[mechanism]
    if not salt or len(stored) != size or len(server) != size:
        raise UsageError(f"expected a salt and keys of {size} bytes for {mechanism}")
    return ScramVerifier(mechanism, iterations, salt, stored, server)


def _argon2(text: str) -> str:
    match = _ARGON2.fullmatch(text)
    if match is None:
        raise UsageError("expected $argon2id$v=19$m=…,t=…,p=…$SALT$HASH")
    if any(len(part) % 4 == 1 for part in match.group(4, 5)):
        raise UsageError("expected a salt and a hash in base64, without padding")
    memory_kib, passes, lanes = int(match[1]), int(match[2]), int(match[3])
    if not 8 * lanes <= memory_kib <= ARGON2_MEMORY_KIB_MAX:
        raise UsageError(f"expected a hash of at most {ARGON2_MEMORY_KIB_MAX} KiB of memory (m)")
    if not 1 <= passes <= ARGON2_PASSES_MAX or lanes == 0:
        raise UsageError(f"expected a hash of 1 to {ARGON2_PASSES_MAX} passes (t)")
    return text
