"""Where the units of a sequence stand to each other, as far as their origins say: a tree, read in pre-order.

A unit's parent is its left origin. It finds inserts whose right origin does not stand to their right: Yjs and yrs put
such ones where the order of arrival has it, so that who loads the document reads another text than who saw it grow.
Only branches are kept: the next unit of typed text goes without saying. Source: yjs Item.js, `integrate`."""

from array import array
from bisect import bisect_right
from collections.abc import Mapping
from itertools import repeat
from typing import TypeAlias

from history.crdt.updates import Id, RefusedUpdate

SCANNED_MAX = 50_000
"""Siblings that one update may have looked through, besides four for each of its structs. People who insert at one
place at the same time are few."""

Key: TypeAlias = Id | tuple[None, object]
"""The unit whose children are meant, or (None, parent) for what stands at the start of a sequence."""

Column: TypeAlias = "array[int]"

_NONE = -1
"""No branch: of units without a known place. Also no origin, no right origin, no jump."""
_NEXT = -1
"""Among siblings: the next unit of their parent's branch; the others are numbers of branches."""


class _Rows:
    """Branches by number: units of one client from clock `start` on, each behind the one before, the first behind unit
    `origin` of branch `parent`. Columns take a fifth of what objects do, and hold nothing that could be garbage.

    Those from `kept` on are of the update that is judged in `turn`."""

    __slots__ = (
        "clients",
        "depths",
        "jumps",
        "kept",
        "origins",
        "parents",
        "right_clients",
        "right_clocks",
        "starts",
        "turn",
    )

    def __init__(self) -> None:
        self.clients: Column = array("q")
        self.starts: Column = array("i")
        self.origins: Column = array("i")
        self.parents: Column = array("i")
        self.right_clients: Column = array("q")
        self.right_clocks: Column = array("i")
        self.depths: Column = array("i")
        self.jumps: Column = array("i")
        """Myers' skew-binary jumps: an ancestor at any depth is found in logarithmic time."""
        self.kept = 0
        self.turn = 0

    def begin(self) -> int:
        """Drop what the update before left behind, unless it was kept; return the turn of the next one."""
        if len(self.starts) > self.kept:
            columns = (self.clients, self.starts, self.origins, self.parents, self.right_clients, self.right_clocks)
            for column in (*columns, self.depths, self.jumps):
                del column[self.kept :]
        self.turn += 1
        return self.turn

    def add(self, client: int, start: int, origin: int, right: Id | None, parent: int) -> int:
        depths, jumps = self.depths, self.jumps
        number = len(depths)
        if parent < 0:
            depths.append(0)
            jumps.append(_NONE)
        else:
            depth = depths[parent]
            once = jumps[parent]
            twice = jumps[once] if once >= 0 else _NONE
            as_far = twice >= 0 and depth - depths[once] == depths[once] - depths[twice]
            jumps.append(twice if as_far else parent)
            depths.append(depth + 1)
        right_client, right_clock = right or (_NONE, 0)
        self.clients.append(client)
        self.starts.append(start)
        self.origins.append(origin)
        self.parents.append(parent)
        self.right_clients.append(right_client)
        self.right_clocks.append(right_clock)
        return number

    def add_more(self, starts: range) -> None:
        """Add branches that are as the last one but for where they start."""
        self.starts.extend(starts)
        columns = (self.clients, self.origins, self.parents, self.right_clients, self.right_clocks)
        for column in (*columns, self.depths, self.jumps):
            column.extend(repeat(column[-1], len(starts)))

    def is_before(self, number: int, right: Id | None) -> bool:
        """Whether this is the right origin of a branch."""
        if right is None:
            return self.right_clients[number] < 0
        return self.right_clocks[number] == right[1] and self.right_clients[number] == right[0]

    def ancestor_at(self, depth: int, number: int) -> int:
        depths, jumps = self.depths, self.jumps
        while depths[number] > depth:
            jump = jumps[number]
            number = jump if depths[jump] >= depth else self.parents[number]
        return number


class Astray(RefusedUpdate):
    """Raised for an update in which nothing is wrong but that right neighbours do not stand to the right: `inserts` are
    the first units of such structs, (client, clock, parent)."""

    def __init__(self, inserts: list[tuple[int, int, str | Id]]) -> None:
        super().__init__("an insert's right neighbour does not stand to its right")
        self.inserts = inserts


class Branches:
    """The branches of a document, or those that an update adds to it; both are rows of the same columns."""

    __slots__ = ("by_client", "children", "rows", "turn")

    def __init__(self, rows: _Rows | None = None) -> None:
        self.rows = rows or _Rows()
        self.turn = self.rows.begin()
        self.by_client: dict[int, tuple[Column, Column]] = {}
        """Rising clocks, and from each on the number of the units' branch."""
        self.children: dict[Key, int | list[int]] = {}
        """From right to left, of the units that have other children than the next unit of their branch. The newest
        stands leftmost, unless it was concurrent: so it is the last of the list, where one more costs nothing. Where
        it is alone with the next unit, or without one, its number says all."""

    def more(self) -> "Branches":
        """Room for an update's branches: until the next update's, unless they are absorbed before."""
        return Branches(self.rows)

    def absorb(self, newer: "Branches") -> None:
        assert newer.rows is self.rows and newer.turn == self.rows.turn, "only the last update may be absorbed"
        self.rows.kept = len(self.rows.starts)
        self.children.update(newer.children)
        for client, columns in newer.by_client.items():
            mine = self.by_client.setdefault(client, columns)
            if mine is not columns:
                mine[0].extend(columns[0])
                mine[1].extend(columns[1])

    def goes_on(self, client: int, origin: Id, right: Id | None) -> bool:
        """Whether text typed behind `origin` by its own client only makes a branch longer."""
        found = self.by_client.get(client)
        if found is None or origin in self.children:
            return False
        last, rows = found[1][-1], self.rows
        if last < 0:
            return False
        if right is None:
            return rows.right_clients[last] < 0
        return rows.right_clocks[last] == right[1] and rows.right_clients[last] == right[0]


class Order:
    """One update's branches laid over a document's."""

    __slots__ = ("astray", "base", "judging", "known", "new", "reached", "rows", "scans")

    def __init__(
        self,
        base: Branches,
        known: Mapping[int, int],
        reached: Mapping[int, int],
        *,
        new: Branches,
        judging: bool,
        structs: int,
    ) -> None:
        self.base = base
        self.new = new
        self.rows = base.rows
        self.known = known
        self.reached = reached
        self.judging = judging
        self.scans = SCANNED_MAX + 4 * structs
        self.astray: list[tuple[int, int, str | Id]] = []
        """Inserts whose right neighbour does not stand to their right, as in `Astray`: they are put in without it."""

    def pass_over(self, client: int, start: int) -> None:
        """From `start` on the client's units have no place in a sequence, or none that is known."""
        found = self.new.by_client.get(client)
        if found is None or found[1][-1] != _NONE:
            self._begin(client, start, _NONE)

    def place(self, client: int, starts: range, origin: Id | None, right: Id | None, parent: str | Id) -> None:
        """Put structs in that begin at these clocks, one as the next: behind `origin`, or at the start of what `parent`
        names. More than one do not go on behind their client's last unit. Raises: RefusedUpdate."""
        rows, children, start = self.rows, self.new.children, starts[0]
        key: Key
        if origin is None:
            behind, clock, key = _NONE, 0, (None, parent)
        else:
            behind, clock = self._of(origin), origin[1]
            if behind < 0:
                self.pass_over(client, start)
                return
            key = origin
        listed = children.get(key)
        if listed is None:
            listed = self.base.children.get(key)
        if listed is None and clock == start - 1 and origin and origin[0] == client and rows.is_before(behind, right):
            return
        before: int | None = None
        if right and (theirs := self._of(right)) >= 0:
            if rows.starts[theirs] == right[1]:
                before = theirs
            elif theirs == behind and right[1] == clock + 1:
                before = _NEXT
            if self.judging and not self._is_right(right[1], theirs, behind, clock, parent):
                self.astray += zip(repeat(client), starts, repeat(parent), strict=False)
                right = before = None
        siblings = listed if isinstance(listed, list) and key in children else self._siblings(listed, behind, clock)
        passed = self._passed(siblings, behind, client, right, before) if siblings else 0
        self._begin(client, start, number := rows.add(client, start, clock, right, behind))
        if len(starts) > 1:
            rows.add_more(starts[1:])
            clocks, numbers = self.new.by_client[client]
            clocks.extend(starts[1:])
            numbers.extend(range(number + 1, number + len(starts)))
        elif listed is None and not passed:
            children[key] = number
            return
        # Each of them stands to the left of the one before it: passing the same siblings, it comes upon that one.
        place = len(siblings) - passed
        siblings[place:place] = range(number, number + len(starts))
        children[key] = siblings

    def _passed(self, siblings: list[int], behind: int, client: int, right: Id | None, before: int | None) -> int:
        """How many siblings, counted from the left, stand to the left of one that `client` puts before `right`."""
        rows = self.rows
        passed = seen = 0
        for seen, sibling in enumerate(reversed(siblings)):
            if sibling == before:
                break
            branch = behind if sibling == _NEXT else sibling
            if rows.clients[branch] < client:
                passed = seen + 1
            elif rows.is_before(branch, right):
                break
        self._scan(seen)
        return passed

    def _is_right(self, right_clock: int, theirs: int, behind: int, clock: int, parent: object) -> bool:
        """Whether unit `right_clock` of branch `theirs` stands to the right of the origin, unit `clock` of branch
        `behind`, where it was the next one for who inserted."""
        rows = self.rows
        if rows.starts[theirs] == right_clock:
            right, common, common_clock = theirs, rows.parents[theirs], rows.origins[theirs]
        else:
            right, common, common_clock = _NEXT, theirs, right_clock - 1
        if common == behind and (common < 0 or common_clock == clock):
            return True
        towards = None if behind < 0 else self._child_towards(common, common_clock, behind, clock)
        if towards is None or towards == right:
            return False
        key: Key = (None, parent) if common < 0 else (rows.clients[common], common_clock)
        siblings = self._siblings(self._listed(key), common, common_clock)
        self._scan(len(siblings) // 4)
        return siblings.index(towards) > siblings.index(right)

    def _child_towards(self, ancestor: int, ancestor_clock: int, branch: int, clock: int) -> int | None:
        """The child of a unit, or of the start of the sequence, that another unit is or descends from, if it does."""
        rows = self.rows
        if ancestor < 0:
            return rows.ancestor_at(0, branch)
        if ancestor == branch:
            return _NEXT if ancestor_clock < clock else None
        depth = rows.depths[ancestor]
        if depth >= rows.depths[branch]:
            return None
        child = rows.ancestor_at(depth + 1, branch)
        if rows.parents[child] != ancestor or ancestor_clock > rows.origins[child]:
            return None
        return child if rows.origins[child] == ancestor_clock else _NEXT

    def _siblings(self, listed: int | list[int] | None, behind: int, clock: int) -> list[int]:
        """A list of one's own of the children of a unit, or of the start of a sequence."""
        if isinstance(listed, list):
            return list(listed)
        siblings = [_NEXT] if behind >= 0 and self._has_next(behind, clock) else []
        if listed is not None:
            siblings.append(listed)
        return siblings

    def _has_next(self, branch: int, clock: int) -> bool:
        client = self.rows.clients[branch]
        have = self.reached.get(client) or self.known.get(client, 0)
        return clock + 1 < have and self._of((client, clock + 1)) == branch

    def _listed(self, key: Key) -> int | list[int] | None:
        listed = self.new.children.get(key)
        return self.base.children.get(key) if listed is None else listed

    def _of(self, unit: Id) -> int:
        client, clock = unit
        found = self.new.by_client.get(client)
        if found is None or clock < found[0][0]:
            found = self.base.by_client.get(client)
            if found is None or clock < found[0][0]:
                return _NONE
        starts, numbers = found
        return numbers[-1] if clock >= starts[-1] else numbers[bisect_right(starts, clock) - 1]

    def _begin(self, client: int, start: int, number: int) -> None:
        found = self.new.by_client.get(client)
        if found is None:
            self.new.by_client[client] = array("i", (start,)), array("i", (number,))
        else:
            found[0].append(start)
            found[1].append(number)

    def _scan(self, siblings: int) -> None:
        self.scans -= siblings
        if self.scans < 0 and self.judging:
            raise RefusedUpdate("too many inserts at one place")
