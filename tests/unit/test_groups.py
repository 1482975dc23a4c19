"""Whose group of the channel layer a name leads to."""

from channels.layers import BaseChannelLayer
from hypothesis import given
from hypothesis import strategies as st

from realtime.groups import chat_group, collab_group, document_group, group_name, notifications_group

PREFIXES = ("", "chat_", "collab_", "notifications_", "palimpsest.", "palimpsest.document.", "sha256.")
NAMES = st.builds(
    lambda prefix, rest: prefix + rest, st.sampled_from(PREFIXES), st.text(max_size=120) | st.from_regex(r"\w{1,9}")
)
KINDS = (group_name, chat_group, collab_group, notifications_group)


def test_a_name_that_the_layer_takes_is_its_group() -> None:
    assert group_name("minutes-2026") == "minutes-2026"
    assert chat_group("minutes-2026") == "chat_minutes-2026"
    assert collab_group("minutes-2026") == "collab_minutes-2026"
    assert notifications_group(7) == "notifications_7"


def test_a_room_named_like_an_accounts_notifications_does_not_reach_them() -> None:
    assert group_name("notifications_7") != notifications_group(7)
    assert group_name("chat_minutes") != chat_group("minutes")
    assert group_name("collab_minutes") != collab_group("minutes")
    assert group_name("palimpsest.document.7") != document_group(7)


def test_the_digest_of_another_name_is_not_taken_for_a_name() -> None:
    hashed = group_name("where/slashes/are")
    assert group_name(hashed) != hashed
    assert chat_group(chat_group("where/slashes/are").removeprefix("chat_")) != chat_group("where/slashes/are")


@given(NAMES, NAMES)
def test_different_rooms_have_different_groups_that_the_layer_takes(one: str, other: str) -> None:
    groups = [kind(name) for kind in KINDS for name in {one, other}]
    assert len(set(groups)) == len(groups)
    for group in groups:
        assert BaseChannelLayer().require_valid_group_name(group)
        assert group.startswith("chat_") == (group in (chat_group(one), chat_group(other)))
        assert not group.startswith("palimpsest.")
