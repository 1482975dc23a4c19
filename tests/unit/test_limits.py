"""Token buckets and counts of sockets, whatever order things happen in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.limits import SocketCounts, TokenBucket, TooManySockets, address_key


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 50)), max_size=50))
def test_a_bucket_lets_through_no_more_than_its_burst_and_its_rate(takes: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(rate=10, burst=20, now=0.0)
    now = taken = 0.0
    for idle, amount in takes:
        now += idle
        taken += amount
        pause = bucket.take(amount, now=now)
        assert pause >= 0
        now += pause
        assert taken <= 20 + 10 * now + 1e-6


def test_a_bucket_takes_a_burst_at_once_and_lets_wait_for_the_rest_alone() -> None:
    bucket = TokenBucket(rate=10, burst=20, now=100.0)
    assert bucket.take(20, now=100.0) == 0.0
    assert bucket.take(5, now=100.0) == 0.5
    assert bucket.take(5, now=1000.0) == 0.0
    assert TokenBucket(rate=0, burst=0, now=0.0).take(1 << 40, now=0.0) == 0.0


KEYS = st.sampled_from([("A_MAX", 1), ("A_MAX", 2), ("B_MAX", 1)])


@given(st.lists(st.tuples(st.integers(0, 5), KEYS | st.none()), max_size=60))
def test_counts_are_exact_and_empty_once_all_sockets_have_ended(
    steps: list[tuple[int, tuple[str, int] | None]],
) -> None:
    counts = SocketCounts()
    sockets = [counts.seats() for _ in range(6)]
    held: list[list[tuple[str, int]]] = [[] for _ in sockets]
    for place, key in steps:
        if key is None:
            sockets[place].give_back()
            held[place].clear()
            continue
        there = sum(seats.count(key) for seats in held)
        assert counts.of(*key) == there
        if there < 3:
            sockets[place].take(*key, at_most=3)
            held[place].append(key)
        else:
            with pytest.raises(TooManySockets, match=key[0]):
                sockets[place].take(*key, at_most=3)
    for seats in sockets:
        seats.give_back()
        seats.give_back()
    assert len(counts) == 0


def test_who_was_silent_for_long_has_saved_up_no_more_than_the_burst() -> None:
    bucket = TokenBucket(rate=10, burst=50, now=0)
    assert bucket.take(50, now=3600) == 0
    assert bucket.take(10, now=3600) == 1


def test_zero_is_no_limit() -> None:
    counts = SocketCounts()
    for _ in range(10):
        counts.seats().take("A_MAX", None, at_most=0)
    assert counts.of("A_MAX", None) == 10


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_counts_as_what_one_customer_has(address: str, key: str) -> None:
    assert address_key(address) == key
