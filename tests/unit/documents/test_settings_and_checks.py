"""The one dict of settings, and the system checks that name what is wrong in it."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from documents.checks import check_open_rooms, check_settings
from documents.conf import Conf, conf

NOT_CALLABLE = 7


def test_without_a_dict_the_defaults_are_in_force(settings: Settings) -> None:
    del settings.PALIMPSEST
    assert conf() == Conf()
    assert check_settings() == []


def test_a_given_value_replaces_the_default_and_whole_numbers_serve_as_seconds(settings: Settings) -> None:
    settings.PALIMPSEST = {"TICKET_SECONDS": 60, "ROOM_IDLE_SECONDS": 5}
    assert (conf().ticket_seconds, conf().room_idle_seconds) == (60, 5)


@pytest.mark.parametrize("given", [{"TICKET_SECOND": 60}, {"TICKET_SECONDS": "60"}, {"OPEN_ROOMS": 1}])
def test_unknown_keys_and_wrong_types_are_refused_and_named_by_the_check(
    settings: Settings, given: dict[str, Any]
) -> None:
    settings.PALIMPSEST = given
    with pytest.raises(ImproperlyConfigured, match=next(iter(given))):
        conf()
    (found,) = check_settings()
    assert found.id == "documents.E001"
    assert next(iter(given)) in found.msg


@pytest.mark.parametrize("given", [[], None, {"TICKET_SECONDS": -1}])
def test_the_check_names_what_is_no_dict_and_what_is_negative(settings: Settings, given: Any) -> None:
    settings.PALIMPSEST = given
    assert [each.id for each in check_settings()] == ["documents.E001"]


@pytest.mark.parametrize("path", ["nowhere.rule", "documents.roles.missing", "rule", "", f"{__name__}.NOT_CALLABLE"])
def test_the_check_names_a_role_rule_that_cannot_be_used(settings: Settings, path: str) -> None:
    settings.PALIMPSEST = {"ROLE_FOR": path}
    assert [each.id for each in check_settings()] == ["documents.E002"]


def test_a_deployment_is_warned_of_open_rooms(settings: Settings) -> None:
    settings.PALIMPSEST = {}
    assert check_open_rooms() == []
    settings.PALIMPSEST = {"OPEN_ROOMS": True}
    assert [each.id for each in check_open_rooms()] == ["documents.W001"]
    settings.PALIMPSEST = []
    assert check_open_rooms() == []
