"""Users and passwords from a file."""

from pathlib import Path
from typing import Final, final

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.auth.password_file import Credentials, read_password_file
from holdfast.broker.authentication import AuthRequest, grant, refuse
from holdfast.broker.identity import Identity
from holdfast.protocol.reason_codes import BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED

# The second choice of RFC 9106 is for 64 MiB; this is what OWASP recommends where many log in at a
# time. docs/internals/authentication.md has the times.
MEMORY_KIB: Final = 19 * 1024
PASSES: Final = 2
LANES: Final = 1


def hasher() -> PasswordHasher:
    """What hashes new passwords, and verifies any."""
    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)


@final
class PasswordLink(Link):
    """Verifies passwords by their argon2id hashes."""

    def __init__(self, name: str, file: Path) -> None:
        super().__init__(name)
        self._file = file
        self._hasher = hasher()
        self._users: dict[str, Credentials] = {}
        # Verified in the place of a hash that is not there, so that the time tells nothing.
        self._nobody = self._hasher.hash(b"")

    @property
    def files(self) -> tuple[Path, ...]:
        """The password file."""
        return (self._file,)

    def reload(self) -> None:
        """Read the file anew."""
        self._users = read_password_file(self._file)

    def step(self, request: AuthRequest) -> Answer:
        """Grant a right password, refuse a wrong one; who is not in the file is not ours."""
        if request.method is not None or request.user_name is None or request.password is None:
            return NOT_MINE
        credentials = self._users.get(request.user_name)
        known = credentials is not None and credentials.argon2 != ""
        hash_ = credentials.argon2 if credentials is not None and known else self._nobody
        try:
            self._hasher.verify(hash_, request.password)
            is_right = True
        except VerificationError:
            is_right = False
        if credentials is None or not known:
            return NOT_MINE
        if not is_right:
            return refuse(BAD_USER_NAME_OR_PASSWORD, detail="wrong password")
        return grant(identity=Identity(request.user_name, mark=credentials.mark))

    def renew(self, request: AuthRequest, identity: Identity) -> Answer:
        """A user stays whose line has stayed."""
        credentials = self._users.get(identity.user_name or "")
        if credentials is None or credentials.mark != identity.mark:
            what = "removed" if credentials is None else "given another password"
            return refuse(NOT_AUTHORIZED, detail=f"the user was {what}")
        return grant(identity=identity)
