import pytest
from django.core.exceptions import ValidationError

from documents.naming import NAME_LENGTH_MAX, validate_name


@pytest.mark.parametrize(
    "name", ["a", "team/minutes 2026", "ä/ö", "roomsy", "chat-1", "x" * NAME_LENGTH_MAX, "👩‍👩‍👧", "a.b", "א\u200f1"]
)
def test_a_room_may_be_called_nearly_anything(name: str) -> None:
    validate_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *[
            "",
            "x" * (NAME_LENGTH_MAX + 1),
            "a\u0308",
            "a\0b",
            "a\nb",
            "a\u2028b",
            "\ud800",
            " a",
            "a ",
            "a\u202eb",
            "a\u2066b",
        ],
        *["/a", "a/", "a//b", ".", "a/../b", "rooms", "rooms/1", "chat/1", "notifications", "notifications/1"],
    ],
)
def test_a_name_that_would_be_ambiguous_or_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        validate_name(name)
