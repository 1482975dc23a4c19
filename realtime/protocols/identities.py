"""Who a socket is to the others: what the server writes into the states that it shows, whatever their client said."""

from dataclasses import dataclass
from typing import Any

from realtime.protocols.awareness import read_state, write_state

STAMP = "verified"
"""The field of `user` that only the server writes: a state that bears it was shown before."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`user` is an account's key as text, empty for nobody; `name` is the account's, None for nobody."""

    user: str
    name: str | None

    def stamp(self, state_json: str) -> str | None:
        """Write this identity into the `user` of a decoded state, whose other fields stay: `id` is the account's key or
        null, `name` the account's (nobody keeps the one they gave), `verified` whether there is an account.

        None where the state cannot be shown: too large with this in it, or with a number that no browser can read."""
        state = read_state(state_json)
        if state is None:
            return None
        given = state.get("user")
        user: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
        user["id"] = self.user or None
        user[STAMP] = self.name is not None
        if self.name is not None:
            user["name"] = self.name
        return write_state({**state, "user": user})


NOBODY = Identity("", None)


def bears_stamp(state_json: str) -> bool:
    """Whether a decoded state has been shown by a server before: who sends it is relaying it."""
    state = read_state(state_json) if STAMP in state_json else None
    user = None if state is None else state.get("user")
    return isinstance(user, dict) and STAMP in user
