"""Which names a text mentions."""

import pytest

from realtime.notifications.mentions import MENTIONS_MAX, names_in, readings_of


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@ada, look", ["ada"]),
        ("hello @ada and (@bob)", ["ada", "bob"]),
        ("@ada.lovelace's turn", ["ada.lovelace"]),
        ("ask @ada.", ["ada."]),
        ("write to ada@paper.example", []),
        ("@kit@paper.example", ["kit@paper.example"]),
        ("@ada @ada @Ada", ["ada", "Ada"]),
        ("@Çelik-öz_1+x", ["Çelik-öz_1+x"]),
        ("@ nobody, @", []),
        ("", []),
    ],
)
def test_a_name_behind_an_at_sign_is_mentioned(text: str, names: list[str]) -> None:
    assert names_in(text) == names


def test_only_so_many_are_mentioned_at_once() -> None:
    text = " ".join(f"@user{number}" for number in range(10_000))
    assert names_in(text) == [f"user{number}" for number in range(MENTIONS_MAX)]


@pytest.mark.parametrize(
    ("name", "readings"),
    [
        ("ada", ["ada"]),
        ("ada.", ["ada.", "ada"]),
        ("ada...", ["ada...", "ada..", "ada"]),
        ("." * 200, ["." * 200, "." * 199]),
    ],
)
def test_what_ends_a_sentence_may_be_of_the_name(name: str, readings: list[str]) -> None:
    assert readings_of(name) == readings
