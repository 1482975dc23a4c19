"""The strip as the page draws it: SVG whose places are attributes in percent, as no style may stand in a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone
from django.utils.formats import date_format

from history.authors import Author
from history.strip import Column, Mark, Share, Strip

TICKS = 5
OTHERS = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A rectangle; `x` and so on are in percent. `colour` is the number of a class of authors.css, or None."""

    colour: int | None
    x: str
    width: str
    y: str
    height: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The bars of one column, which lead to its last seq."""

    seq: int
    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A mark: `look` is the class that draws it."""

    seq: int
    title: str
    look: str
    x: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """A line of the legend: an author (None for all others) and the share in words."""

    author: Author | None
    share: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnStrip:
    stretches: Sequence[Stretch]
    flags: Sequence[Flag]
    legend: Sequence[Legend]
    ticks: Sequence[str]


def drawn(strip: Strip) -> DrawnStrip:
    head_seq = strip.head_seq
    columns = strip.columns
    dated = [column.at for column in columns if column.at is not None]
    places = sorted({round(number * (len(dated) - 1) / (TICKS - 1)) for number in range(TICKS)}) if dated else []
    return DrawnStrip(
        stretches=[_stretch(column, head_seq) for column in columns],
        flags=[_flag(mark, head_seq) for mark in strip.marks],
        legend=[_legend(share) for share in strip.shares],
        ticks=_ticks([dated[place] for place in places]),
    )


def _ticks(times: Sequence[datetime]) -> list[str]:
    """Days, and times of day where days would say the same twice."""
    local = [timezone.localtime(at) for at in times]
    days = [date_format(at, "j M Y") for at in local]
    return days if len({*days}) == len(days) else [date_format(at, "j M, H:i") for at in local]


def _stretch(column: Column, head_seq: int) -> Stretch:
    x, width = (column.first_seq - 1) / head_seq, (column.last_seq - column.first_seq + 1) / head_seq
    bars = [
        Bar(
            colour=part.author.colour if part.author else None,
            x=_percent(x),
            width=_percent(width),
            y=_percent(1 - part.stop),
            height=_percent(part.stop - part.start),
        )
        for part in column.parts
    ]
    who = [(part.author.name if part.author else OTHERS, part.stop - part.start) for part in column.parts]
    named = ", ".join(name if len(who) == 1 else f"{name} {_share(share)}" for name, share in who)
    seqs = str(column.last_seq) if column.first_seq == column.last_seq else f"{column.first_seq}–{column.last_seq}"
    day = f" · about {date_format(timezone.localtime(column.at), 'j M Y')}" if column.at else ""
    return Stretch(seq=column.last_seq, title=f"{named} · seq {seqs}{day}", bars=bars)


def _flag(mark: Mark, head_seq: int) -> Flag:
    more = f" and {mark.count - 1} more" if mark.count > 1 else ""
    match mark.what:
        case "named":
            look, words = "named", f"Version “{mark.name}”"
        case "automatic":
            look, words = "automatic", "Version kept by itself"
        case what:
            look, words = "act", what.capitalize()
    return Flag(seq=mark.seq, title=f"{words}{more} · seq {mark.seq}", look=look, x=_percent(mark.seq / head_seq))


def _legend(share: Share) -> Legend:
    return Legend(author=share.author, share=_share(share.share))


def _percent(part: float) -> str:
    return f"{100 * part:.3f}%"


def _share(share: float) -> str:
    return "under 1%" if share < 0.01 else f"{share:.0%}"
