"""What the broker tells its operator: events, which the driver writes into the log."""

from typing import Final, final

DEBUG: Final = 10  # the numbers of ``logging``
INFO: Final = 20
WARNING: Final = 30


@final
class Event:
    """One line for the operator: what happened to which client, at which address.

    The user, as the client calls itself, and the listener are named where somebody is refused.
    """

    def __init__(
        self,
        level: int,
        text: str,
        client_id: str,
        address: str,
        user_name: str | None = None,
        listener: str = "",
    ) -> None:
        self.level = level
        self.text = text
        self.client_id = client_id
        self.address = address
        self.user_name = user_name
        self.listener = listener
