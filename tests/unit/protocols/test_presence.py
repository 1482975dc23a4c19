"""One room's awareness: who wins, who owns, who leaves, and what is remembered of those who left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.protocols.awareness import (
    AWARENESS_CLOCK_MAX,
    AwarenessEntry,
    decode_awareness_update,
    encode_awareness_update,
)
from realtime.protocols.presence import AwarenessStates, Changes


def shows(client_id: int, clock: int, name: str = "Zoë") -> AwarenessEntry:
    return AwarenessEntry(client_id, clock, f'{{"name":"{name}"}}')


def gone(client_id: int, clock: int) -> AwarenessEntry:
    return AwarenessEntry(client_id, clock, None)


def test_a_new_client_is_added_then_updated_then_removed() -> None:
    room = AwarenessStates()
    assert room.apply([shows(1, 0)], owner="a", now=0) == Changes(added=(shows(1, 0),))
    assert room.apply([shows(1, 1, "Zoe")], owner="a", now=1) == Changes(updated=(shows(1, 1, "Zoe"),))
    assert room.entries() == (shows(1, 1, "Zoe"),)
    assert room.apply([gone(1, 2)], owner="a", now=2) == Changes(removed=(gone(1, 2),))
    assert room.entries() == ()


def test_a_renewed_clock_is_broadcast_even_when_the_state_is_the_same() -> None:
    room = AwarenessStates()
    room.apply([shows(1, 1)], owner="a", now=0)
    assert room.apply([shows(1, 2)], owner="a", now=15).broadcast == (shows(1, 2),)


@pytest.mark.parametrize("clock", [0, 4, 5])
def test_a_copy_relayed_by_somebody_else_changes_nothing(clock: int) -> None:
    room = AwarenessStates()
    room.apply([shows(1, 5)], owner="a", now=0)
    assert room.apply([shows(1, clock, "stale")], owner="b", now=1) == Changes()
    assert room.entries() == (shows(1, 5),)
    assert room.owner_of(1) == "a"


def test_at_an_equal_clock_a_null_counts_from_the_owner_alone() -> None:
    room = AwarenessStates()
    room.apply([shows(1, 5)], owner="a", now=0)
    assert room.apply([gone(1, 5)], owner="b", now=1) == Changes()
    assert room.apply([gone(1, 4)], owner="a", now=1) == Changes()
    assert room.apply([gone(1, 5)], owner="a", now=1) == Changes(removed=(gone(1, 5),))
    assert room.apply([gone(1, 5)], owner="a", now=1) == Changes()


def test_an_entry_belongs_to_the_owner_that_last_raised_its_clock() -> None:
    room = AwarenessStates()
    room.apply([shows(1, 1)], owner="old socket", now=0)
    room.apply([shows(1, 2)], owner="new socket", now=1)
    assert room.owner_of(1) == "new socket"
    assert room.remove_owner("old socket") == ()
    assert room.entries() == (shows(1, 2),)
    assert room.remove_owner("new socket") == (gone(1, 3),)
    assert room.owner_of(1) is None


def test_an_owner_that_ends_takes_all_its_clients_along_and_no_others() -> None:
    room = AwarenessStates()
    room.apply([shows(1, 4), shows(2, 0)], owner="a", now=0)
    room.apply([shows(3, 9)], owner="b", now=0)
    assert room.remove_owner("a") == (gone(1, 5), gone(2, 1))
    assert room.remove_owner("a") == ()
    assert room.entries() == (shows(3, 9),)


def test_a_client_that_left_does_not_come_back_by_a_relayed_copy() -> None:
    room = AwarenessStates()
    room.apply([shows(1, 4)], owner="a", now=0)
    room.remove_owner("a")
    assert room.apply([shows(1, 4)], owner="b", now=1).broadcast == ()
    assert len(room) == 0


def test_a_client_that_reconnects_at_its_old_clock_is_told_the_clock_to_outrun() -> None:
    room = AwarenessStates()
    room.apply([shows(1, 4)], owner="a", now=0)
    room.remove_owner("a")
    assert room.apply([shows(1, 4)], owner="a again", now=1) == Changes(outdated=(gone(1, 5),))
    assert room.apply([shows(1, 6)], owner="a again", now=1) == Changes(added=(shows(1, 6),))


def test_clients_that_fall_silent_expire_and_renewed_ones_stay() -> None:
    room = AwarenessStates()
    room.apply([shows(1, 1), shows(2, 1)], owner="a", now=100)
    room.apply([shows(2, 2)], owner="a", now=115)
    assert room.expire(129.9, 30) == ()
    assert room.expire(130, 30) == (gone(1, 2),)
    assert room.entries() == (shows(2, 2),)
    assert room.remove_owner("a") == (gone(2, 3),)


def test_a_stale_copy_does_not_keep_a_silent_client_alive() -> None:
    room = AwarenessStates()
    room.apply([shows(1, 1)], owner="a", now=0)
    room.apply([shows(1, 1)], owner="b", now=29)
    assert room.expire(30, 30) == (gone(1, 2),)


def test_a_full_room_refuses_new_clients_and_keeps_serving_those_it_has() -> None:
    room = AwarenessStates(states_max=2)
    changes = room.apply([shows(1, 1), shows(2, 1), shows(3, 1)], owner="a", now=0)
    assert changes == Changes(added=(shows(1, 1), shows(2, 1)))
    assert room.apply([shows(2, 2)], owner="b", now=0).updated == (shows(2, 2),)
    room.apply([gone(1, 2)], owner="a", now=0)
    assert room.apply([shows(3, 1)], owner="a", now=0).added == (shows(3, 1),)


def test_one_owner_cannot_fill_the_room() -> None:
    room = AwarenessStates()
    changes = room.apply([shows(1, 1), shows(2, 1), shows(3, 1)], owner="a", now=0, owned_max=2)
    assert changes == Changes(added=(shows(1, 1), shows(2, 1)))
    assert room.apply([shows(1, 2)], owner="a", now=0, owned_max=2).updated == (shows(1, 2),)
    assert room.apply([shows(3, 1)], owner="b", now=0, owned_max=2).added == (shows(3, 1),)
    assert room.apply([shows(3, 2)], owner="a", now=0, owned_max=2) == Changes()


def test_the_memory_of_those_who_left_is_bounded_and_forgets_the_longest_gone_first() -> None:
    room = AwarenessStates(states_max=2)
    for client_id in (1, 2, 3):
        room.apply([shows(client_id, 1)], owner=client_id, now=0)
        room.remove_owner(client_id)
    assert room.apply([shows(3, 1)], owner="x", now=0).outdated == (gone(3, 2),)
    assert room.apply([shows(2, 1)], owner="x", now=0).outdated == (gone(2, 2),)
    assert room.apply([shows(1, 1)], owner="x", now=0).added == (shows(1, 1),)


def test_a_null_about_an_unknown_client_is_remembered_and_not_broadcast() -> None:
    room = AwarenessStates()
    assert room.apply([gone(1, 7)], owner="a", now=0) == Changes()
    assert room.apply([shows(1, 7)], owner="b", now=0).broadcast == ()


def test_the_removal_at_the_highest_clock_is_one_that_clients_may_relay() -> None:
    room = AwarenessStates()
    room.apply([shows(1, AWARENESS_CLOCK_MAX)], owner="a", now=0)
    removed = room.remove_owner("a")
    assert decode_awareness_update(encode_awareness_update(removed)) == (gone(1, AWARENESS_CLOCK_MAX),)


entries = st.lists(
    st.builds(
        lambda client_id, clock, leaves: gone(client_id, clock) if leaves else shows(client_id, clock),
        st.integers(1, 4),
        st.integers(0, 6),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda entry: entry.client_id,
)
steps = st.lists(
    st.tuples(st.sampled_from("abc"), entries, st.sampled_from(["apply", "remove", "expire"])), max_size=30
)


@given(steps)
def test_whoever_follows_the_broadcasts_sees_what_a_new_joiner_sees(
    history: list[tuple[str, list[AwarenessEntry], str]],
) -> None:
    room = AwarenessStates(states_max=3)
    follower: dict[int, AwarenessEntry] = {}
    clocks: dict[int, int] = {}
    for now, (owner, sent, act) in enumerate(history):
        match act:
            case "apply":
                news = room.apply(sent, owner=owner, now=now, owned_max=2).broadcast
            case "remove":
                news = room.remove_owner(owner)
            case _:
                news = room.expire(now, 5)
        for entry in news:
            clocks[entry.client_id] = entry.clock
            follower[entry.client_id] = entry
        shown = {client_id: entry for client_id, entry in follower.items() if entry.state_json is not None}
        assert shown == {entry.client_id: entry for entry in room.entries()}
        assert len(room) <= 3
        assert all(room.owner_of(client_id) is not None for client_id in shown)
