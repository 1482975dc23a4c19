"""Quill deltas: what a text says and how it changes, for clients without a CRDT.

Lengths are UTF-16 units, an embed counts 1. In plain text an embed stands as one U+FFFC, so that a place in it is an
offset of the delta."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fast_diff_match_patch import diff

from history.crdt.content import is_same, readable
from history.crdt.updates import utf16_length
from history.crdt.values import BadValue, checked, checked_text

EMBED = "\ufffc"
"""What stands for an embed in plain text (OBJECT REPLACEMENT CHARACTER)."""

DIFF_SECONDS_MAX = 0.1
"""After that a difference gets coarser, never wrong."""

LENGTH_MAX = 2**31 - 1

Attributes: TypeAlias = dict[str, Any]

Runs: TypeAlias = Sequence[Any]
"""The `delta` of a canonical tree (`history.crdt.content.Tree`)."""


class BadDelta(ValueError):
    """Raised for what is no delta; the message names the step that is none, from 0 on."""


@dataclass(frozen=True, slots=True)
class Retain:
    """Pass over so many units, and give them these attributes; None takes one away."""

    length: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert a text or one embed. Without attributes it takes on those that stand where it comes to stand."""

    what: Any
    attributes: Attributes | None


@dataclass(frozen=True, slots=True)
class Delete:
    length: int


Step: TypeAlias = Retain | Insert | Delete


def read_delta(value: Any, *, steps_max: int) -> list[Step]:
    """Read a delta as Quill writes it: a list of steps, or an object whose `ops` is one. Raises: BadDelta."""
    steps = value.get("ops") if isinstance(value, dict) else value
    if not isinstance(steps, list):
        raise BadDelta("a delta is a list of steps")
    if len(steps) > steps_max:
        raise BadDelta(f"a delta has at most {steps_max} steps")
    return [_step(place, step) for place, step in enumerate(steps)]


def _step(place: int, step: Any) -> Step:
    named = step.keys() & {"retain", "insert", "delete"} if isinstance(step, dict) else ()
    if len(named) != 1:
        raise BadDelta(f"step {place}: one of retain, insert and delete")
    try:
        attributes = checked(step.get("attributes") or {})
        if not isinstance(attributes, dict):
            raise BadDelta(f"step {place}: attributes are an object")
        match step:
            case {"insert": str() as text} if text:
                return Insert(checked_text(text), _given(attributes))
            case {"insert": dict() as embed} if embed:
                return Insert(checked(embed), _given(attributes))
            case {"retain": int() as length} if _is_length(length):
                return Retain(length, attributes)
            case {"delete": int() as length} if _is_length(length):
                return Delete(length)
    except BadValue as error:
        raise BadDelta(f"step {place}: {error}") from None
    raise BadDelta(f"step {place}: a length above 0, or a text or an object to insert")


def _is_length(length: int) -> bool:
    return not isinstance(length, bool) and 0 < length <= LENGTH_MAX


def _given(attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def plain_text(runs: Runs) -> str:
    """The text of a delta, embeds as U+FFFC."""
    return "".join(run["insert"] if isinstance(run["insert"], str) else EMBED for run in runs)


def steps_between(have: str, want: str) -> list[Step]:
    """What makes one text of another: what is in both stays, character by character, for others may be at it, and two
    who write the same words anew would have them twice. Inserted text takes on the attributes that stand there."""
    steps: list[Step] = []
    for operation, old, new in _compared(have, want, cleanup="No"):
        if operation == "=":
            steps.append(Retain(utf16_length(old), {}))
        elif operation == "-":
            steps.append(Delete(utf16_length(old)))
        else:
            steps.append(Insert(new, None))
    return steps


def delta_between(have: Runs, want: Runs) -> list[dict[str, Any]]:
    """The delta, as Quill writes it, that makes `want` of `have`; what stays at the end is not said."""
    old_runs, new_runs = _Runs(have), _Runs(want)
    delta: list[dict[str, Any]] = []
    for operation, old, new in _compared(plain_text(have), plain_text(want), cleanup="Semantic"):
        if operation == "=":
            _retell(delta, list(old_runs.take(len(old))), list(new_runs.take(len(new))))
        elif operation == "-":
            list(old_runs.take(len(old)))
            _add(delta, "delete", utf16_length(old), {})
        else:
            for piece, attributes in new_runs.take(len(new)):
                _add(delta, "insert", piece, attributes)
    while delta and set(delta[-1]) == {"retain"}:
        delta.pop()
    return delta


def readable_delta(runs: Runs) -> list[dict[str, Any]]:
    """The delta that makes a text of nothing."""
    return delta_between([], runs)


def _compared(have: str, want: str, *, cleanup: str) -> Iterator[tuple[str, str, str]]:
    """Yield (operation, of have, of want) from start to end: `=`, `-` and `+`."""
    # People type at one place of a text: what is alike around it is found in a fiftieth of the time of a diff.
    shorter = min(len(have), len(want))
    start = _length_alike(shorter, lambda known, more: have[known:more] == want[known:more])
    end = _length_alike(
        shorter - start,
        lambda known, more: have[len(have) - more : len(have) - known] == want[len(want) - more : len(want) - known],
    )
    if start:
        yield "=", have[:start], want[:start]
    yield from _differing(have[start : len(have) - end], want[start : len(want) - end], cleanup)
    if end:
        yield "=", have[-end:], want[-end:]


def _length_alike(most: int, is_alike: Callable[[int, int], bool]) -> int:
    """How far two texts are alike, by halves: `is_alike` says of a piece whether it is, once all before it is."""
    known = 0
    while known < most:
        middle = (known + most + 1) // 2
        if is_alike(known, middle):
            known = middle
        else:
            most = middle - 1
    return known


def _differing(have: str, want: str, cleanup: str) -> Iterator[tuple[str, str, str]]:
    if have and want:
        steps = diff(have, want, timelimit=DIFF_SECONDS_MAX, checklines=True, cleanup=cleanup, counts_only=True)
    else:
        steps = [("-", len(have))] * bool(have) + [("+", len(want))] * bool(want)
    at = to = 0
    for operation, length in steps:
        old = have[at : at + length] if operation != "+" else ""
        new = want[to : to + length] if operation != "-" else ""
        at, to = at + len(old), to + len(new)
        yield operation, old, new


class _Runs:
    """Takes characters off a delta from its start, with their attributes; an embed is one."""

    def __init__(self, runs: Runs) -> None:
        self._runs = iter(runs)
        self._left: Any = ""
        self._attributes: Attributes = {}

    def take(self, count: int) -> Iterator[tuple[Any, Attributes]]:
        while count:
            if self._left == "":
                run = next(self._runs)
                self._left, self._attributes = run["insert"], run["attributes"]
                continue
            if isinstance(self._left, str):
                taken, self._left = self._left[:count], self._left[count:]
                count -= len(taken)
            else:
                taken, self._left = self._left, ""
                count -= 1
            yield taken, self._attributes


def _retell(delta: list[dict[str, Any]], old: list[tuple[Any, Attributes]], new: list[tuple[Any, Attributes]]) -> None:
    """Say of characters that look the same which formats changed; an embed that is another one is replaced."""
    for (had, formats), (has, wanted) in _side_by_side(old, new):
        is_text = isinstance(had, str)
        if is_text == isinstance(has, str) and (is_text or is_same(had, has)):
            length = utf16_length(had) if is_text else 1
            _add(delta, "retain", length, _format_changes(formats, wanted))
        else:
            _add(delta, "delete", 1, {})
            _add(delta, "insert", has, wanted)


def _side_by_side(
    old: list[tuple[Any, Attributes]], new: list[tuple[Any, Attributes]]
) -> Iterator[tuple[tuple[Any, Attributes], tuple[Any, Attributes]]]:
    """Pair pieces of two sequences that are as long, cut where either is; embeds and what stands for them alone."""
    left, right = list(reversed(old)), list(reversed(new))
    while left:
        (had, formats), (has, wanted) = left.pop(), right.pop()
        length = min(len(had) if isinstance(had, str) else 1, len(has) if isinstance(has, str) else 1)
        if isinstance(had, str) and len(had) > length:
            left.append((had[length:], formats))
            had = had[:length]
        if isinstance(has, str) and len(has) > length:
            right.append((has[length:], wanted))
            has = has[:length]
        yield (had, formats), (has, wanted)


def _format_changes(had: Attributes, has: Attributes) -> Attributes:
    if is_same(had, has):
        return {}
    changed = {name: value for name, value in has.items() if not is_same(had.get(name), value)}
    return changed | dict.fromkeys(had.keys() - has.keys())


def _add(delta: list[dict[str, Any]], name: str, what: Any, attributes: Attributes) -> None:
    """Add a step, joined to the last one where it goes on with it."""
    if name == "insert" and not isinstance(what, str):
        told = readable(what)
        what = told if isinstance(told, dict) else {"value": told}
    last = delta[-1] if delta else {}
    is_alike = name in last and is_same(last.get("attributes", {}), attributes)
    if is_alike and type(last[name]) is type(what) and not isinstance(what, dict):
        last[name] += what
    else:
        delta.append({name: what, **({"attributes": attributes} if attributes else {})})
