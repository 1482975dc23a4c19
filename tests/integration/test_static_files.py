"""Static files under ASGI and under WSGI: whole, in part, or not at all, and without a word in the log."""

import pytest
from django.test import AsyncClient, Client
from pytest_django import Settings

FILE = "/static/admin/css/base.css"


async def test_a_file_is_sent_with_what_whitenoise_says_of_it() -> None:
    whole = await AsyncClient().get(FILE)
    assert whole.status_code == 200
    assert whole["Content-Type"] == 'text/css; charset="utf-8"'
    assert int(whole["Content-Length"]) == len(whole.content) > 0
    assert "max-age" in whole["Cache-Control"]


async def test_a_part_an_unchanged_file_and_a_wrong_method_are_answered_as_such() -> None:
    client = AsyncClient()
    whole = await client.get(FILE)
    part = await client.get(FILE, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, whole.content[5:10])
    unchanged = await client.get(FILE, headers={"If-None-Match": whole["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    head = await client.head(FILE)
    assert (head.content, head["Content-Length"]) == (b"", whole["Content-Length"])
    assert (await client.post(FILE)).status_code == 405


@pytest.mark.parametrize("debug", [False, True])
async def test_what_is_no_file_goes_on_to_django(settings: Settings, debug: bool) -> None:
    settings.DEBUG = debug
    client = AsyncClient()
    assert (await client.get(FILE)).status_code == 200
    for path in ("/static/nothing.css", "/static/../manage.py"):
        assert (await client.get(path)).status_code == 404


def test_wsgi_is_served_as_well() -> None:
    assert Client().get(FILE).content.startswith(b"/*")
