"""Where the units of a sequence stand to each other, as far as their origins say: a tree, read in pre-order.

A unit's parent is its left origin. It keeps out inserts whose right origin does not stand to their right: Yjs and yrs
put such ones where the order of arrival has it, so that who loads the document reads another text than who saw it grow.
Only branches are kept: the next unit of typed text goes without saying. Source: yjs Item.js, `integrate`."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import TypeAlias

from history.crdt.updates import Id, RefusedUpdate

SCANNED_MAX = 50_000
"""Siblings that one update may have looked through, besides four for each of its structs. People who insert at one
place at the same time are few."""

Key: TypeAlias = tuple[int | None, object]
"""The unit whose children are meant, or (None, parent) for what stands at the start of a sequence."""


class Branch:
    """Units of one client from clock `start` on, each behind the one before; the first behind `origin`."""

    __slots__ = ("client", "depth", "jump", "origin", "parent", "right", "start")

    def __init__(self, client: int, start: int, origin: Id | None, right: Id | None, parent: "Branch | None") -> None:
        self.client = client
        self.start = start
        self.origin = origin
        self.right = right
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        # Myers' skew-binary jumps: an ancestor at any depth is found in logarithmic time. The first of all has none;
        # one to itself would keep it until garbage is collected.
        self.jump: Branch | None = parent
        if parent is not None and (once := parent.jump) is not None:
            twice = once.jump or once
            if parent.depth - once.depth == once.depth - twice.depth:
                self.jump = twice

    def ancestor_at(self, depth: int) -> "Branch":
        branch = self
        while branch.depth > depth:
            if branch.jump is not None and branch.jump.depth >= depth:
                branch = branch.jump
            else:
                assert branch.parent is not None
                branch = branch.parent
        return branch


class Branches:
    """The branches of a document, or those that an update adds to it. None stands for units without a known place."""

    __slots__ = ("by_client", "children")

    def __init__(self) -> None:
        self.by_client: dict[int, tuple[list[int], list[Branch | None]]] = {}
        self.children: dict[Key, list[Id]] = {}
        """From right to left, of the units that have other children than the next unit of their branch. The newest
        stands leftmost, unless it was concurrent: so it is the last of the list, where one more costs nothing."""

    def absorb(self, newer: "Branches") -> None:
        self.children.update(newer.children)
        for client, (starts, branches) in newer.by_client.items():
            mine = self.by_client.setdefault(client, ([], []))
            mine[0].extend(starts)
            mine[1].extend(branches)

    def of(self, unit: Id) -> "Branch | None":
        found = self.by_client.get(unit[0])
        if found is None or unit[1] < found[0][0]:
            return None
        return found[1][bisect_right(found[0], unit[1]) - 1]

    def goes_on(self, client: int, origin: Id, right: Id | None) -> bool:
        """Whether text typed behind `origin` by its own client only makes a branch longer."""
        found = self.by_client.get(client)
        if found is None or origin in self.children:
            return False
        last = found[1][-1]
        return last is not None and last.right == right


class Order:
    """One update's branches laid over a document's."""

    __slots__ = ("base", "judging", "known", "new", "reached", "scans")

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
        self.known = known
        self.reached = reached
        self.judging = judging
        self.scans = SCANNED_MAX + 4 * structs

    def pass_over(self, client: int, start: int) -> None:
        """From `start` on the client's units have no place in a sequence, or none that is known."""
        starts, branches = self._new_of(client)
        if not branches or branches[-1] is not None:
            starts.append(start)
            branches.append(None)

    def place(self, client: int, start: int, origin: Id | None, right: Id | None, parent: object) -> None:
        """Put units in: behind `origin`, or at the start of what `parent` names. Raises: RefusedUpdate."""
        if origin is not None and origin[0] == client and origin[1] == start - 1:
            last = self._of(origin)
            if last is not None and last.right == right and self._listed(origin) is None:
                return
        behind = None if origin is None else self._of(origin)
        if origin is not None and behind is None:
            self.pass_over(client, start)
            return
        key: Key = (None, parent) if origin is None else origin
        if right is not None and self.judging:
            self._check(origin, right, behind, parent)
        starts, branches = self._new_of(client)
        siblings = self._siblings(key)
        starts.append(start)
        branches.append(Branch(client, start, origin, right, behind))
        passed = self._passed(siblings, client, right) if siblings else 0
        siblings.insert(len(siblings) - passed, (client, start))
        self.new.children[key] = siblings

    def _passed(self, siblings: list[Id], client: int, right: Id | None) -> int:
        """How many siblings, counted from the left, stand to the left of one that `client` puts before `right`."""
        passed = seen = 0
        for seen, sibling in enumerate(reversed(siblings)):
            if sibling == right:
                break
            if sibling[0] < client:
                passed = seen + 1
            else:
                branch = self._of(sibling)
                if branch is not None and branch.right == right:
                    break
        self._scan(seen)
        return passed

    def _check(self, origin: Id | None, right: Id, behind: Branch | None, parent: object) -> None:
        """Refuse unless `right` stands to the right of `origin`, where it was the next one for who inserted."""
        theirs = self._of(right)
        if theirs is None:
            return
        common = theirs.origin if theirs.start == right[1] else (right[0], right[1] - 1)
        if common == origin:
            return
        towards = None if behind is None or origin is None else self._child_towards(common, origin, behind)
        if towards is not None and towards != right:
            siblings = self._siblings((None, parent) if common is None else common)
            self._scan(len(siblings) // 4)
            if siblings.index(towards) > siblings.index(right):
                return
        raise RefusedUpdate("an insert's right neighbour does not stand to its right")

    def _child_towards(self, ancestor: Id | None, unit: Id, branch: Branch) -> Id | None:
        """The child of `ancestor` (None: the start of the sequence) that `unit` is or descends from, if it does."""
        if ancestor is None:
            first = branch.ancestor_at(0)
            return first.client, first.start
        theirs = self._of(ancestor)
        if theirs is None or theirs.depth > branch.depth:
            return None
        if theirs is branch:
            return (ancestor[0], ancestor[1] + 1) if ancestor[1] < unit[1] else None
        if theirs.depth == branch.depth:
            return None
        child = branch.ancestor_at(theirs.depth + 1)
        if child.parent is not theirs or child.origin is None or ancestor[1] > child.origin[1]:
            return None
        return (child.client, child.start) if child.origin == ancestor else (ancestor[0], ancestor[1] + 1)

    def _siblings(self, key: Key) -> list[Id]:
        """A list of one's own, with the next unit of the same branch."""
        listed = self._listed(key)
        if listed is not None:
            return list(listed) if key not in self.new.children else listed
        client, clock = key
        if client is None or not isinstance(clock, int):
            return []
        following = client, clock + 1
        have = self.reached.get(client) or self.known.get(client, 0)
        return [following] if following[1] < have and self._of(following) is self._of((client, clock)) else []

    def _listed(self, key: Key) -> list[Id] | None:
        return self.new.children.get(key) or self.base.children.get(key)

    def _of(self, unit: Id) -> Branch | None:
        found = self.new.by_client.get(unit[0])
        if found is not None and found[0] and unit[1] >= found[0][0]:
            return found[1][bisect_right(found[0], unit[1]) - 1]
        return self.base.of(unit)

    def _new_of(self, client: int) -> tuple[list[int], list[Branch | None]]:
        found = self.new.by_client.get(client)
        if found is None:
            found = self.new.by_client[client] = ([], [])
        return found

    def _scan(self, siblings: int) -> None:
        self.scans -= siblings
        if self.scans < 0 and self.judging:
            raise RefusedUpdate("too many inserts at one place")
