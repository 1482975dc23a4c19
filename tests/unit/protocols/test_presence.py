"""One room's awareness: who wins, who owns, who leaves, and what is remembered of those who left."""

from collections.abc import Hashable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.protocols.awareness import (
    AWARENESS_CLOCK_MAX,
    SHOWN_JSON_BYTES_MAX,
    AwarenessEntry,
    Claim,
    decode_awareness_update,
    encode_awareness_update,
)
from realtime.protocols.identities import Identity
from realtime.protocols.presence import (
    AWARENESS_CHANGES_PER_SECOND,
    AWARENESS_CLOCK_AHEAD_MAX,
    AwarenessStates,
    Changes,
)

UNHEARD = Changes(unheard=True)


def shows(client_id: int, clock: int, name: str = "Zoë") -> AwarenessEntry:
    return AwarenessEntry(client_id, clock, f'{{"name":"{name}"}}')


def gone(client_id: int, clock: int) -> AwarenessEntry:
    return AwarenessEntry(client_id, clock, None)


class Unstamped(Identity):
    """Says whose an entry is and leaves its state as it was: what is written into states is tested apart."""

    def stamp(self, state_json: str) -> str:
        return state_json


def told(
    room: AwarenessStates,
    entries: Sequence[AwarenessEntry],
    *,
    owner: Hashable,
    user: str = "",
    now: float = 0,
    owned_max: int | None = None,
) -> Changes:
    """What it changes in a room that this connection, of nobody unless of a user, sends these entries."""
    return room.hear(entries, owner=owner, identity=Unstamped(user, user or None), now=now, owned_max=owned_max)


def test_a_new_client_is_added_then_updated_then_removed() -> None:
    room = AwarenessStates()
    assert told(room, [shows(1, 0)], owner="a", now=0) == Changes(added=(shows(1, 0),))
    assert told(room, [shows(1, 1, "Zoe")], owner="a", now=1) == Changes(updated=(shows(1, 1, "Zoe"),))
    assert room.entries() == (shows(1, 1, "Zoe"),)
    assert told(room, [gone(1, 2)], owner="a", now=2) == Changes(removed=(gone(1, 2),))
    assert room.entries() == ()


def test_a_renewed_clock_is_broadcast_even_when_the_state_is_the_same() -> None:
    room = AwarenessStates()
    told(room, [shows(1, 1)], owner="a", now=0)
    assert told(room, [shows(1, 2)], owner="a", now=15).broadcast == (shows(1, 2),)


@pytest.mark.parametrize("clock", [0, 4, 5])
def test_a_copy_relayed_by_somebody_else_changes_nothing(clock: int) -> None:
    room = AwarenessStates()
    told(room, [shows(1, 5)], owner="a", now=0)
    assert told(room, [shows(1, clock, "stale")], owner="b", now=1) == Changes()
    assert room.entries() == (shows(1, 5),)
    assert room.owner_of(1) == "a"


@pytest.mark.parametrize("user", ["", "ada"])
def test_at_an_equal_clock_a_null_counts_from_the_owner_alone(user: str) -> None:
    room = AwarenessStates()
    told(room, [shows(1, 5)], owner="a", user=user, now=0)
    assert told(room, [gone(1, 5)], owner="another tab", user=user, now=1) == Changes()
    assert told(room, [gone(1, 4)], owner="a", user=user, now=1) == Changes()
    assert told(room, [gone(1, 5)], owner="a", user=user, now=1) == Changes(removed=(gone(1, 5),))
    assert told(room, [gone(1, 5)], owner="a", user=user, now=1) == Changes()


def test_an_entry_belongs_to_the_owner_that_last_raised_its_clock() -> None:
    room = AwarenessStates()
    told(room, [shows(1, 1)], owner="old socket", user="ada", now=0)
    told(room, [shows(1, 2)], owner="new socket", user="ada", now=1)
    assert room.owner_of(1) == "new socket"
    assert room.remove_owner("old socket") == ()
    assert room.entries() == (shows(1, 2),)
    assert room.remove_owner("new socket") == (gone(1, 3),)
    assert room.owner_of(1) is None


def test_an_owner_that_ends_takes_all_its_clients_along_and_no_others() -> None:
    room = AwarenessStates()
    told(room, [shows(1, 4), shows(2, 0)], owner="a", now=0)
    told(room, [shows(3, 9)], owner="b", now=0)
    assert room.remove_owner("a") == (gone(1, 5), gone(2, 1))
    assert room.remove_owner("a") == ()
    assert room.entries() == (shows(3, 9),)


def test_a_client_that_left_does_not_come_back_by_a_relayed_copy() -> None:
    room = AwarenessStates()
    told(room, [shows(1, 4)], owner="a", now=0)
    room.remove_owner("a")
    assert told(room, [shows(1, 4)], owner="b", now=1).broadcast == ()
    assert len(room) == 0


def test_a_client_that_reconnects_at_its_old_clock_is_told_the_clock_to_outrun() -> None:
    room = AwarenessStates()
    told(room, [shows(1, 4)], owner="a", now=0)
    room.remove_owner("a")
    assert told(room, [shows(1, 4)], owner="a again", now=1) == Changes(outdated=(gone(1, 5),))
    assert told(room, [shows(1, 6)], owner="a again", now=1) == Changes(added=(shows(1, 6),))


def test_clients_that_fall_silent_expire_and_renewed_ones_stay() -> None:
    room = AwarenessStates()
    told(room, [shows(1, 1), shows(2, 1)], owner="a", now=100)
    told(room, [shows(2, 2)], owner="a", now=115)
    assert room.expire(129.9, 30) == ()
    assert room.expire(130, 30) == (gone(1, 2),)
    assert room.entries() == (shows(2, 2),)
    assert room.remove_owner("a") == (gone(2, 3),)


def test_a_stale_copy_does_not_keep_a_silent_client_alive() -> None:
    room = AwarenessStates()
    told(room, [shows(1, 1)], owner="a", now=0)
    told(room, [shows(1, 1)], owner="b", now=29)
    assert room.expire(30, 30) == (gone(1, 2),)


def test_a_full_room_refuses_new_clients_and_keeps_serving_those_it_has() -> None:
    room = AwarenessStates(states_max=2)
    changes = told(room, [shows(1, 1), shows(2, 1), shows(3, 1)], owner="a", now=0)
    assert changes == Changes(added=(shows(1, 1), shows(2, 1)), unheard=True)
    assert told(room, [shows(2, 2)], owner="a", now=0).updated == (shows(2, 2),)
    told(room, [gone(1, 2)], owner="a", now=0)
    assert told(room, [shows(3, 1)], owner="a", now=0).added == (shows(3, 1),)


def test_one_owner_cannot_fill_the_room() -> None:
    room = AwarenessStates()
    changes = told(room, [shows(1, 1), shows(2, 1), shows(3, 1)], owner="a", now=0, owned_max=2)
    assert changes == Changes(added=(shows(1, 1), shows(2, 1)), unheard=True)
    assert told(room, [shows(1, 2)], owner="a", now=0, owned_max=2).updated == (shows(1, 2),)
    assert told(room, [shows(3, 1)], owner="b", now=0, owned_max=2).added == (shows(3, 1),)
    assert told(room, [shows(3, 2)], owner="a", now=0, owned_max=2) == UNHEARD


def test_the_memory_of_those_who_left_is_bounded_and_forgets_the_longest_gone_first() -> None:
    room = AwarenessStates(states_max=2)
    for client_id in (1, 2, 3):
        told(room, [shows(client_id, 1)], owner=client_id, now=0)
        room.remove_owner(client_id)
    assert told(room, [shows(3, 1)], owner="x", now=0).outdated == (gone(3, 2),)
    assert told(room, [shows(2, 1)], owner="x", now=0).outdated == (gone(2, 2),)
    assert told(room, [shows(1, 1)], owner="x", now=0).added == (shows(1, 1),)


def test_who_leaves_again_is_remembered_as_the_last_who_left() -> None:
    room = AwarenessStates(states_max=2)
    for client_id in (1, 2):
        told(room, [shows(client_id, 1)], owner=client_id)
        room.remove_owner(client_id)
    told(room, [gone(1, 3)], owner="x")
    told(room, [shows(3, 1)], owner=3)
    room.remove_owner(3)
    assert told(room, [shows(1, 1)], owner="x").outdated == (gone(1, 3),)


def test_who_came_back_takes_no_place_among_those_who_left() -> None:
    room = AwarenessStates(states_max=2)
    told(room, [shows(1, 1)], owner="hers", user="ada")
    room.remove_owner("hers")
    told(room, [shows(1, 3)], owner="hers", user="ada")
    told(room, [shows(2, 1)], owner="his", user="bob")
    told(room, [gone(2, 2), shows(3, 1), gone(3, 2)], owner="his", user="bob")
    assert [room.user_of(client_id) for client_id in (1, 2, 3)] == ["ada", "bob", "bob"]


def test_of_users_who_are_forgotten_nothing_is_kept() -> None:
    room = AwarenessStates(states_max=4)
    for number in range(100):
        told(room, [shows(number, 1)], owner=number, user=f"user{number}")
        room.remove_owner(number)
    assert len(room._left_of) == len(room._left) == 4
    assert not room._owned


def test_who_comes_and_goes_without_end_does_not_make_a_room_forget_the_others() -> None:
    room = AwarenessStates(states_max=4)
    for client_id, user in ((1, "ada"), (2, "")):
        told(room, [shows(client_id, 1)], owner=user, user=user)
        room.remove_owner(user)
    for client_id in range(10, 30):
        told(room, [shows(client_id, 1)], owner="his", user="bob")
        room.remove_owner("his")
    assert [room.user_of(client_id) for client_id in (1, 27, 28, 29)] == ["ada", None, "bob", "bob"]
    assert told(room, [shows(2, 1)], owner="x").outdated == (gone(2, 2),)


def test_a_null_about_an_unknown_client_is_neither_shown_nor_remembered() -> None:
    room = AwarenessStates()
    assert told(room, [gone(1, 7)], owner="a", user="bob") == Changes()
    assert told(room, [shows(1, 1)], owner="b", user="ada").added == (shows(1, 1),)


def test_the_removal_at_the_highest_clock_is_one_that_clients_may_relay() -> None:
    room = AwarenessStates(clock_ahead_max=AWARENESS_CLOCK_MAX)
    told(room, [shows(1, AWARENESS_CLOCK_MAX)], owner="a", now=0)
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
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["", "ada", "bob"]),
        entries,
        st.sampled_from(["connection", "process", "remove", "expire"]),
    ),
    max_size=30,
)


@given(steps)
def test_whoever_follows_the_broadcasts_sees_what_a_new_joiner_sees(
    history: list[tuple[str, str, list[AwarenessEntry], str]],
) -> None:
    room = AwarenessStates(states_max=3)
    follower: dict[int, AwarenessEntry] = {}
    clocks: dict[int, int] = {}
    for now, (owner, user, sent, act) in enumerate(history):
        match act:
            case "connection":
                news = told(room, sent, owner=owner, user=user, now=now, owned_max=2).broadcast
            case "process":
                news = room.hear_claims([Claim(user, entry) for entry in sent], owner=owner, now=now).broadcast
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


# Whose a client is


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(shows(1, 6, "Eve"), id="shown in her place"),
        pytest.param(shows(1, 5, "Eve"), id="shown at her clock"),
        pytest.param(shows(1, AWARENESS_CLOCK_MAX, "Eve"), id="silenced"),
        pytest.param(gone(1, 6), id="removed"),
        pytest.param(gone(1, 5), id="removed by who wakes"),
    ],
)
@pytest.mark.parametrize("user", ["bob", ""])
def test_nobody_speaks_for_another_persons_client(forged: AwarenessEntry, user: str) -> None:
    room = AwarenessStates()
    told(room, [shows(1, 5)], owner="hers", user="ada")
    changes = told(room, [forged], owner="other", user=user)
    assert (changes.broadcast, changes.outdated) == ((), ())
    assert room.hear_claims([Claim(user, forged)], owner="process", now=0).broadcast == ()
    assert (room.entries(), room.owner_of(1)) == ((shows(1, 5),), "hers")
    assert told(room, [shows(1, 6)], owner="hers", user="ada").updated == (shows(1, 6),)


@pytest.mark.parametrize("user", ["bob", ""])
def test_a_client_that_left_stays_its_users(user: str) -> None:
    room = AwarenessStates()
    told(room, [shows(1, 5)], owner="hers", user="ada")
    room.remove_owner("hers")
    assert told(room, [shows(1, 7)], owner="other", user=user) == UNHEARD
    assert told(room, [shows(1, 5)], owner="other", user=user) == Changes()
    assert told(room, [gone(1, 9)], owner="other", user=user) == Changes()
    assert room.user_of(1) == "ada"
    assert told(room, [shows(1, 7)], owner="hers again", user="ada").added == (shows(1, 7),)


def test_a_person_who_reconnects_takes_over_while_the_old_socket_hangs() -> None:
    room = AwarenessStates()
    told(room, [shows(1, 5)], owner="old socket", user="ada")
    assert told(room, [shows(1, 6)], owner="new socket", user="ada").updated == (shows(1, 6),)
    assert room.remove_owner("old socket") == ()


def test_a_person_who_reconnects_takes_over_from_a_socket_in_another_process_and_the_other_way_round() -> None:
    room = AwarenessStates()
    room.hear_claims([Claim("ada", shows(1, 5))], owner="process", now=0)
    assert told(room, [shows(1, 6)], owner="new socket", user="ada").updated == (shows(1, 6),)
    assert room.remove_owner("process") == ()
    room.hear_claims([Claim("ada", shows(1, 7))], owner="process", now=0)
    assert room.remove_owner("new socket") == ()
    assert room.entries() == (shows(1, 7),)


@pytest.mark.parametrize("user", ["", "bob"])
def test_nobody_speaks_for_a_client_of_nobodys_whose_connection_is_here(user: str) -> None:
    room = AwarenessStates()
    told(room, [shows(1, 5)], owner="a")
    assert told(room, [shows(1, 5, "relayed")], owner="b", user=user) == Changes()
    assert told(room, [shows(1, 6)], owner="b", user=user) == UNHEARD
    assert told(room, [gone(1, 6)], owner="b", user=user) == Changes()
    assert room.hear_claims([Claim(user, shows(1, 6))], owner="process", now=0).broadcast == ()
    assert (room.entries(), room.owner_of(1), room.user_of(1)) == ((shows(1, 5),), "a", None)
    assert told(room, [shows(1, 6)], owner="a").updated == (shows(1, 6),)


@pytest.mark.parametrize("ended", ["connection", "process", "silence"])
@pytest.mark.parametrize("user", ["", "ada"])
def test_nobodys_client_passes_to_whoever_raises_its_clock_once_its_owner_has_gone(ended: str, user: str) -> None:
    """As one who reconnects, or has signed in, before the server knows that the old socket is dead."""
    room = AwarenessStates()
    if ended == "process":
        room.hear_claims([Claim("", shows(1, 5))], owner="old", now=0)
    else:
        told(room, [shows(1, 5)], owner="old")
    assert told(room, [shows(1, 6)], owner="new", user=user) == UNHEARD
    removed = room.expire(30, 30) if ended == "silence" else room.remove_owner("old")
    assert removed == (gone(1, 6),)
    assert told(room, [shows(1, 7)], owner="new", user=user).added == (shows(1, 7),)
    assert room.remove_owner("old") == ()


@pytest.mark.parametrize("user", ["", "bob"])
def test_what_somebody_without_an_account_writes_under_only_their_connection_shows_until_it_ends(user: str) -> None:
    room = AwarenessStates()
    told(room, [shows(1, 5)], owner="hers")
    room.wrote([1, 2], owner="hers")
    room.expire(30, 30)
    for client_id in (1, 2):
        assert told(room, [shows(client_id, 7)], owner="other", user=user) == UNHEARD
        assert (room.owner_of(client_id), room.user_of(client_id)) == ("hers", None)
    assert room.hear_claims([Claim(user, shows(2, 7))], owner="process", now=30).broadcast == ()
    room.remove_owner("hers")
    for client_id in (1, 2):
        assert told(room, [shows(client_id, 7)], owner="other", user=user).added == (shows(client_id, 7),)


def test_nobody_fills_a_room_so_that_others_are_not_seen() -> None:
    room = AwarenessStates(states_max=4)
    told(room, [shows(client_id, 1) for client_id in (1, 2, 3, 4)], owner="eve's", user="eve")
    told(room, [shows(1, 2)], owner="eve's", user="eve")
    assert told(room, [shows(5, 1)], owner="ada's", user="ada") == Changes(added=(shows(5, 1),), removed=(gone(2, 2),))
    assert told(room, [shows(2, 3)], owner="eve's", user="eve") == UNHEARD
    assert told(room, [shows(6, 1)], owner="bob's", user="bob").removed == (gone(3, 2),)
    assert told(room, [shows(7, 1)], owner="ada's", user="ada") == UNHEARD  # then she would show the most
    assert {entry.client_id for entry in room.entries()} == {1, 4, 5, 6}


def test_the_last_of_nobodys_connections_that_wrote_under_a_client_shows_it() -> None:
    room = AwarenessStates()
    room.wrote([1], owner="old")
    told(room, [shows(1, 5)], owner="old")
    room.wrote([1], owner="new")
    assert told(room, [shows(1, 6)], owner="new").updated == (shows(1, 6),)
    assert room.remove_owner("old") == ()
    assert told(room, [shows(1, 7)], owner="other") == UNHEARD
    room.remove_owner("new")
    assert room.owner_of(1) is None


@pytest.mark.parametrize("quicker", ["bob", ""])
def test_who_has_written_under_a_client_id_takes_it_back_at_once_from_who_was_quicker(quicker: str) -> None:
    bound: dict[int, str] = {}
    room = AwarenessStates(bound_user=bound.get)
    told(room, [shows(1, 900, "Bob")], owner="his", user=quicker)
    assert told(room, [shows(1, 3)], owner="hers", user="ada") == Changes()
    bound[1] = "ada"
    assert told(room, [shows(1, 901, "Bob")], owner="his", user=quicker) == UNHEARD
    # She is told the clock to outrun, as a Yjs client then does.
    assert told(room, [shows(1, 4)], owner="hers", user="ada") == Changes(outdated=(gone(1, 900),))
    assert told(room, [shows(1, 901)], owner="hers", user="ada").updated == (shows(1, 901),)
    assert room.remove_owner("his") == ()


def test_a_second_window_that_relays_the_first_is_not_told_that_it_has_gone() -> None:
    room = AwarenessStates(bound_user={1: "ada"}.get)
    told(room, [shows(1, 5)], owner="first window", user="ada")
    assert told(room, [shows(1, 5)], owner="second window", user="ada") == Changes()


def test_a_relay_of_somebody_this_room_has_not_heard_of_yet_shows_nobody() -> None:
    room = AwarenessStates()
    ada = Identity("7", "Ada").stamp('{"cursor":1}')
    anonymous = Identity("", None).stamp("{}")
    for client_id, state_json in ((1, ada), (2, anonymous)):
        relayed = AwarenessEntry(client_id, 5, state_json)
        assert room.hear([relayed], owner="b", identity=Identity("8", "Bob"), now=0) == Changes()
        assert room.hear_claims([Claim("7", relayed)], owner="process", now=0).added == (relayed,)


def test_a_clock_may_be_ahead_by_weeks_of_moves_and_no_further_however_many_steps_it_takes() -> None:
    room = AwarenessStates(opened_at=1000)
    assert told(room, [shows(1, AWARENESS_CLOCK_AHEAD_MAX + 1)], owner="a", now=1000) == UNHEARD
    assert told(room, [shows(1, AWARENESS_CLOCK_AHEAD_MAX - 1)], owner="a", now=1000).added
    assert told(room, [shows(1, AWARENESS_CLOCK_AHEAD_MAX)], owner="a", now=1000).updated
    assert told(room, [shows(1, AWARENESS_CLOCK_AHEAD_MAX + 1)], owner="a", now=1000) == UNHEARD
    assert told(room, [gone(1, AWARENESS_CLOCK_AHEAD_MAX + 1)], owner="a", now=1000) == Changes()
    room.remove_owner("a")
    assert told(room, [shows(1, AWARENESS_CLOCK_AHEAD_MAX + 2)], owner="b", now=1000) == UNHEARD


def test_who_was_led_up_to_the_highest_clock_goes_on_from_there() -> None:
    room = AwarenessStates()
    told(room, [shows(1, AWARENESS_CLOCK_AHEAD_MAX)], owner="squatter")
    room.remove_owner("squatter")
    clock = AWARENESS_CLOCK_AHEAD_MAX + 2
    for now in (1, 15, 30):
        assert told(room, [shows(1, clock)], owner="hers", now=now).broadcast == (shows(1, clock),)
        clock += 1


def test_a_clock_beyond_31_bits_is_passed_over_and_its_sender_answered() -> None:
    room = AwarenessStates(clock_ahead_max=AWARENESS_CLOCK_MAX)
    told(room, [shows(1, AWARENESS_CLOCK_MAX)], owner="a")
    above = shows(1, AWARENESS_CLOCK_MAX + 1)
    assert told(room, [above], owner="a", now=3600) == UNHEARD
    assert room.hear_claims([Claim("", above)], owner="process", now=0).broadcast == ()
    assert AWARENESS_CLOCK_AHEAD_MAX + 365 * 86400 * AWARENESS_CHANGES_PER_SECOND < AWARENESS_CLOCK_MAX


def test_of_a_client_that_is_somebody_elses_for_good_only_news_is_answered() -> None:
    """Else everybody's relays of everybody would be answered."""
    room = AwarenessStates(bound_user={1: "bob"}.get)
    assert told(room, [shows(1, 0)], owner="hers", user="ada") == UNHEARD
    told(room, [shows(1, 7, "Bob")], owner="his", user="bob")
    assert told(room, [shows(1, 7, "Bob")], owner="hers", user="ada") == Changes()
    assert told(room, [gone(1, 8)], owner="hers", user="ada") == Changes()
    assert told(room, [shows(1, 8)], owner="hers", user="ada") == UNHEARD


def test_states_are_shown_and_kept_as_stamped() -> None:
    room = AwarenessStates()
    identity = Identity("7", "Ada")
    changes = room.hear([AwarenessEntry(1, 1, "{}")], owner="a", identity=identity, now=0)
    stamped = AwarenessEntry(1, 1, identity.stamp("{}"))
    assert changes.added == room.entries() == (stamped,)
    assert room.claims(of=lambda owner: owner == "a") == [Claim("7", stamped)]
    assert room.claims(of=lambda owner: owner != "a") == []


def test_a_state_too_large_once_stamped_is_passed_over() -> None:
    room = AwarenessStates()
    large = f'{{"a":"{"x" * (SHOWN_JSON_BYTES_MAX - 20)}"}}'
    assert room.hear([AwarenessEntry(1, 1, large)], owner="a", identity=Identity("7", "Ada"), now=0) == UNHEARD
