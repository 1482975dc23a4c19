"""A bound that is no setting is listed all the same, with what it is in the code."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

from history.crdt import editing, guard, lib0, order, state_vectors, updates
from realtime import guest_consumers, public_groups, sockets, yjs_consumers
from realtime.chat import models as chat
from realtime.collab import consumers, gatherings, participants, pens
from realtime.hocuspocus import addresses, connections, stateless
from realtime.notifications import consumers as notifications
from realtime.protocols import awareness, collab, hocuspocus

OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()
UPDATES = (state_vectors, updates, lib0, guard, order)
JSON_ROOMS = (collab, consumers, gatherings, participants, pens, editing)
HOCUSPOCUS = (hocuspocus, addresses, connections, stateless)
OTHER_DOORS = (chat, notifications, guest_consumers, sockets, yjs_consumers, public_groups)
WHAT_CLIENTS_SEND_MEETS = (*UPDATES, awareness, *JSON_ROOMS, *HOCUSPOCUS, *OTHER_DOORS)
NO_BOUND_OF_ITS_OWN = {"SAFE_INTEGER_MAX", "NUMBER_GROWTH_BYTES_MAX", "USER_BYTES_MAX", "ID_MAX"}
"""Of the wire's numbers, of what a state grows by, of what the server alone writes, and of the database's keys."""


def constants_of(module: ModuleType) -> dict[str, int]:
    """What the module itself names, not what it imports."""
    assert module.__file__ is not None
    named = re.findall(r"^([A-Z][A-Z_0-9]*_MAX) = ", Path(module.__file__).read_text(), re.MULTILINE)
    return {name: getattr(import_module(module.__name__), name) for name in named}


def test_every_fixed_limit_is_listed_with_its_value() -> None:
    table = OPERATIONS.split("## Fixed limits")[1].split("##")[0]
    listed = {name: int(value) for name, value in re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", table, re.MULTILINE)}
    there = {name: value for module in WHAT_CLIENTS_SEND_MEETS for name, value in constants_of(module).items()}
    assert listed == {name: value for name, value in there.items() if name not in NO_BOUND_OF_ITS_OWN}
