"""SCRAM verifiers: how they are made of passwords, and found for the users of a file."""

import hmac
import re
import secrets
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, final

from scramp import (  # type: ignore[import-untyped]  # it has no types
    ScramException,
    ScramMechanism,
)
from scramp.utils import saslprep  # type: ignore[import-untyped]  # as above

from holdfast.auth.password_file import (
    SCRAM_ITERATIONS_MAX,
    SCRAM_ITERATIONS_MIN,
    SCRAM_MECHANISMS,
    USER_NAME_CHARACTERS_MAX,
    Credentials,
    ScramVerifier,
    parse,
    read_text,
)
from holdfast.errors import ConfigError

METHODS: Final = tuple(SCRAM_MECHANISMS)
# The client computes them, so a storm of reconnects costs the server nothing more. RFC 7677 asks
# for 4096 at least and recommends 15 000. 50 000 take 13 ms of one core with SHA-256, 31 ms with
# SHA-512; a small device may need a lower number.
ITERATIONS_DEFAULT: Final = 50_000
SALT_BYTES: Final = 16  # of a new verifier
SALT_BYTES_MIN: Final = 12  # what the library takes
SALT_BYTES_MAX: Final = 64
PASSWORD_CHARACTERS_MAX: Final = 1024
NAME_BYTES_MAX: Final = 4 * USER_NAME_CHARACTERS_MAX  # as a client sends it

# A line of a password file that makes the challenges of unknown users the same for good.
_DECOY_KEY: Final = re.compile(r"^# scram-decoy-key: ([A-Za-z0-9+/]{43}=)\r?$", re.MULTILINE)


def prepared(text: str) -> str:
    """A user name or password in the one form that is compared, by SASLprep.

    Raises ValueError, without the text, for one that is empty or has characters which are not
    allowed. Source: RFC 4013.
    """
    if text.isascii() and text.isprintable() and text:
        return text  # Most are, and a file may have a million of them.
    try:
        form = saslprep(text)
    except ScramException:
        form = ""
    if not isinstance(form, str) or form == "":
        raise ValueError("expected a text that SASLprep allows") from None
    return form


def new_verifier(method: str, password: str, iterations: int = ITERATIONS_DEFAULT) -> ScramVerifier:
    """The verifier of a password, with a fresh salt.

    Raises ValueError for a password that SASLprep does not allow. It takes its time.
    """
    assert method in METHODS
    assert SCRAM_ITERATIONS_MIN <= iterations <= SCRAM_ITERATIONS_MAX
    if len(password) > PASSWORD_CHARACTERS_MAX:
        raise ValueError(f"expected a password of at most {PASSWORD_CHARACTERS_MAX} characters")
    form = prepared(password)
    salt = secrets.token_bytes(SALT_BYTES)
    _, stored_key, server_key, _ = ScramMechanism(method).make_auth_info(form, iterations, salt)
    return ScramVerifier(method, iterations, salt, stored_key, server_key)


def new_decoy_line() -> str:
    """A line for a password file, which makes up the challenges of users that it has not."""
    return f"# scram-decoy-key: {b64encode(secrets.token_bytes(32)).decode()}"


@final
class Verifiers:
    """The verifiers of a file, found by user names in the form of SASLprep.

    For a user that there is not, or not with this method, there is a decoy: the same for the same
    name as long as the key is the same, and like the others for who does not have the key.
    """

    def __init__(self, users: Mapping[str, Credentials], decoy_key: bytes) -> None:
        self._users: dict[str, tuple[str, Mapping[str, ScramVerifier]]] = {}
        self._decoy_key = decoy_key
        for user, credentials in users.items():
            if not credentials.scram:
                continue
            try:
                form = prepared(user)
            except ValueError:
                raise ConfigError(f"user {user!r}: expected a name that SASLprep allows") from None
            if form in self._users:
                both = " and ".join(map(repr, sorted([user, self._users[form][0]])))
                raise ConfigError(f"users {both}: expected names that differ after SASLprep")
            self._users[form] = user, credentials.scram
        self._forms = {method: self._common_form(method) for method in METHODS}

    def find(self, method: str, form: str) -> tuple[str, ScramVerifier] | None:
        """The user's name as it is written, and the verifier; None for none."""
        user, found = self._users.get(form, ("", {}))
        verifier = found.get(method)
        return None if verifier is None else (user, verifier)

    def decoy(self, method: str, form: str) -> ScramVerifier:
        """What a user that there is not would have. Its keys fit no password."""
        iterations, salt_bytes = self._forms[method]
        seed = f"{method} {form}".encode()
        size = SCRAM_MECHANISMS[method]
        salt, stored_key, server_key = (
            hmac.digest(self._decoy_key, purpose + seed, "sha512")
            for purpose in (b"salt ", b"stored ", b"server ")
        )
        return ScramVerifier(
            method, iterations, salt[:salt_bytes], stored_key[:size], server_key[:size]
        )

    def _common_form(self, method: str) -> tuple[int, int]:
        """The iterations and the salt's bytes that most users have."""
        forms = Counter(
            (verifier.iterations, len(verifier.salt)) for verifier in self._all_of(method)
        )
        for _, salt_bytes in forms:
            if not SALT_BYTES_MIN <= salt_bytes <= SALT_BYTES_MAX:
                raise ConfigError(
                    f"a salt of {method} has {salt_bytes} bytes: "
                    f"expected {SALT_BYTES_MIN} to {SALT_BYTES_MAX}"
                )
        if not forms:
            return ITERATIONS_DEFAULT, SALT_BYTES
        return forms.most_common(1)[0][0]

    def _all_of(self, method: str) -> Iterable[ScramVerifier]:
        return (found[method] for _, found in self._users.values() if method in found)


def read_verifiers(path: Path, decoy_key: bytes) -> Verifiers:
    """The verifiers of a password file; its own key for decoys wins. Raises ConfigError."""
    text = read_text(path)
    users = parse(text, str(path))
    if own := _DECOY_KEY.search(text):
        decoy_key = b64decode(own[1])
    try:
        return Verifiers(users, decoy_key)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
