"""Users and passwords from a file."""

import secrets
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, final

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.auth.password_file import Credentials, read_password_file
from holdfast.auth.secret_cache import SecretCache
from holdfast.broker.authentication import AuthRequest, grant, refuse
from holdfast.broker.identity import Identity
from holdfast.protocol.reason_codes import BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED

# What OWASP recommends where many log in at a time; RFC 9106 has 64 MiB for where few do. The
# times are in docs/internals/authentication.md.
MEMORY_KIB: Final = 19 * 1024
PASSES: Final = 2
LANES: Final = 1
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32

CACHE_S: Final = 86_400.0


def new_hash(password: bytes) -> str:
    """The argon2id hash of a password, with a fresh salt. It takes its time."""
    return _hasher().hash(password)


def _hasher() -> PasswordHasher:
    return PasswordHasher(
        time_cost=PASSES,
        memory_cost=MEMORY_KIB,
        parallelism=LANES,
        hash_len=HASH_BYTES,
        salt_len=SALT_BYTES,
    )


@final
class PasswordLink(Link):
    """Verifies passwords by their argon2id hashes, and remembers for a time those that were right.

    A user that there is not costs as much time as one that there is.
    """

    def __init__(
        self,
        name: str,
        file: Path,
        *,
        cache_s: float = CACHE_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name)
        self._file = file
        self._hasher = _hasher()
        self._right: SecretCache[bool] = SecretCache(seconds=cache_s, clock_s=clock_s)
        # Put in the place of the other by each reload, as a whole.
        self._users: tuple[dict[str, Credentials], str] = ({}, _nobody(()))

    @property
    def files(self) -> tuple[Path, ...]:
        """The password file."""
        return (self._file,)

    def reload(self) -> None:
        """Read the file."""
        users = read_password_file(self._file)
        self._users = users, _nobody(users.values())

    def step(self, request: AuthRequest) -> Answer:
        """Grant a right password, refuse a wrong one; who is not in the file is not ours."""
        user_name, password = request.user_name, request.password
        if request.method is not None or user_name is None or password is None:
            return NOT_MINE
        users, nobody = self._users
        credentials = users.get(user_name)
        if credentials is None or not credentials.argon2:
            self._is_right(nobody, password)
            if credentials is None:
                return NOT_MINE
            return refuse(BAD_USER_NAME_OR_PASSWORD, detail="this user has SCRAM verifiers alone")
        if not self._is_right(credentials.argon2, password):
            return refuse(BAD_USER_NAME_OR_PASSWORD, detail="wrong password")
        return grant(identity=Identity(user_name, mark=credentials.mark))

    def renew(self, request: AuthRequest, identity: Identity) -> Answer:
        """A user stays whose line has stayed."""
        credentials = self._users[0].get(identity.user_name or "")
        if credentials is None:
            return refuse(NOT_AUTHORIZED, detail="the user was removed")
        if credentials.mark != identity.mark:
            return refuse(NOT_AUTHORIZED, detail="the user has another password now")
        return grant(identity=identity)

    def _is_right(self, hash_: str, password: bytes) -> bool:
        digest = self._right.digest(hash_.encode(), password)
        if self._right.get(digest):
            return True
        try:
            self._hasher.verify(hash_, password)
        except VerifyMismatchError:
            return False
        self._right.put(digest, True)
        return True


def _nobody(users: Iterable[Credentials]) -> str:
    """A hash that no password fits, and that costs as much as most users' hashes do."""
    costs = Counter(user.argon2.rsplit("$", 2)[0] for user in users if user.argon2).most_common(1)
    cost = costs[0][0] if costs else f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}"
    salt, made_up = (
        b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (SALT_BYTES, HASH_BYTES)
    )
    return f"{cost}${salt}${made_up}"
