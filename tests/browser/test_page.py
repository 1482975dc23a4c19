"""The writing page in a real browser, together with a stock Yjs client from npm."""

import json
import os
import re
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from django.conf import settings

import history
from history.authors import colour_number
from tests.browser.chromium import Browser, Page, running_browser
from tests.clients.driver import NodeClients
from tests.clients.people import Cast, a_cast, an_editor
from tests.clients.stack import Stack, a_room

pytestmark = pytest.mark.skipif(os.environ.get("NO_BROWSER") == "1", reason="NO_BROWSER=1")

STYLES = Path(history.__file__).parent / "static" / "history" / "authors.css"
HUES = 24

EDITOR = "document.querySelector('#editor').shadowRoot?.querySelector('.cm-content')"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as running:
        yield running


@pytest.fixture
async def cast(members_stack: Stack) -> Cast:
    return await members_stack.database.run(a_cast, a_room("on a page/ü"))


async def page_of(browser: Browser, stack: Stack, cast: Cast, name: str) -> Page:
    """The document's page as this person has it open, ready to be read."""
    key = cast.cookies[name]["Cookie"].partition("=")[2]
    url = f"{stack.http_url}/d/{cast.document.key}/"
    page = await browser.new_page(url, cookies={settings.SESSION_COOKIE_NAME: key})
    await page.wait(f"{EDITOR} && document.querySelector('#connection').dataset.kind === 'connected'")
    return page


async def type_at_the_end(page: Page, text: str) -> None:
    await page.evaluate(f"{EDITOR}.focus()")
    await page.press_control_end()
    await page.type(text)


def shows(text: str) -> str:
    """The page has all of this, a space at its end too."""
    return f"{EDITOR}.textContent.includes({text!r})"


async def test_two_pages_and_a_stock_client_type_together(
    members_stack: Stack, node: NodeClients, browser: Browser, cast: Cast
) -> None:
    stock = await members_stack.join(node, "stock", cast.room, headers=cast.cookies["ed"], types={"content": "text"})
    await stock.type("From Node. ", root="content")
    olga = await page_of(browser, members_stack, cast, "olga")
    ed = await page_of(browser, members_stack, cast, "ed")
    for page in (olga, ed):
        await page.wait(shows("From Node. "))

    await type_at_the_end(olga, "Olga writes. ")
    await ed.wait(shows("Olga writes. "))
    await type_at_the_end(ed, "Ed answers.")
    await olga.wait(shows("Ed answers."))

    await stock.wait_seen("From Node. Olga writes. Ed answers.", root="content")
    writers = {row.user_id for row in members_stack.database.rows(cast.room)}
    assert writers == {cast.user_ids["ed"], cast.user_ids["olga"]}


async def test_a_viewer_reads_the_page_and_cannot_type_into_it(
    members_stack: Stack, node: NodeClients, browser: Browser, cast: Cast
) -> None:
    stock = await members_stack.join(node, "stock", cast.room, headers=cast.cookies["ed"], types={"content": "text"})
    vic = await page_of(browser, members_stack, cast, "vic")
    await stock.type("Read this.", root="content")
    await vic.wait(shows("Read this."))
    assert await vic.evaluate(f"{EDITOR}.contentEditable") == "false"


def colour_class(number: int) -> str:
    """The colour of a class of the history's style sheet, as `#rrggbb`."""
    found = re.search(rf"\.author-{number} \{{ --author: (#[0-9a-f]{{6}}); \}}", STYLES.read_text())
    assert found is not None
    return found[1]


def shows_people(colours: dict[str, str]) -> str:
    """Among the people at the top of the page are these, in these colours."""
    return f"""((wanted) => {{
      const shown = Object.fromEntries(Array.from(document.querySelectorAll('#people .person'), (person) =>
        [person.title, person.querySelector('.disc')?.style.getPropertyValue('--person')]))
      return Object.entries(wanted).every(([name, colour]) => shown[name] === colour)
    }})({json.dumps(colours)})"""


async def test_a_person_has_the_same_colour_on_the_page_as_in_the_history(
    members_stack: Stack, node: NodeClients, browser: Browser, cast: Cast
) -> None:
    olga = await page_of(browser, members_stack, cast, "olga")
    people = [f"olga of {cast.room}"]
    for person in ("ada", "bob", "eve", "admin", "日本"):  # beside a hue that is taken the later one has another
        taken = {(colour_number(name) + step) % HUES for name in people for step in (-1, 0, 1)}
        tries = (f"{person} {n} of {cast.room}" for n in count())
        people.append(next(name for name in tries if colour_number(name) % HUES not in taken))
    names = people[1:]
    for name in names:
        headers = await members_stack.database.run(an_editor, cast, name)
        stock = await members_stack.join(node, name, cast.room, headers=headers)
        await stock.set_awareness({"user": {"name": "whoever", "color": "#000000", "since": 1}})
    await olga.wait(shows_people({name: colour_class(colour_number(name)) for name in names}))


async def test_of_two_people_of_one_hue_the_later_one_takes_the_next_that_is_free_on_every_screen(
    members_stack: Stack, node: NodeClients, browser: Browser, cast: Cast
) -> None:
    pages = [await page_of(browser, members_stack, cast, name) for name in ("olga", "ed")]
    early = f"bob of {cast.room}"
    names = (f"guest {n} of {cast.room}" for n in count())
    late = next(name for name in names if colour_number(name) % HUES == colour_number(early) % HUES)
    for since, name in ((2, late), (1, early)):
        headers = await members_stack.database.run(an_editor, cast, name)
        stock = await members_stack.join(node, name, cast.room, headers=headers)
        await stock.set_awareness({"user": {"name": name, "since": since}})
    tone, hue = divmod(colour_number(late), HUES)
    moved = colour_class(tone * HUES + (hue + 2) % HUES)
    for page in pages:
        await page.wait(shows_people({early: colour_class(colour_number(early)), late: moved}))


async def test_an_owner_finds_the_members_from_the_page_and_nobody_else_does(
    members_stack: Stack, browser: Browser, cast: Cast
) -> None:
    members = f"document.querySelector('.links a[href=\"/d/{cast.document.key}/members/\"]') !== null"
    assert await (await page_of(browser, members_stack, cast, "olga")).evaluate(members)
    assert not await (await page_of(browser, members_stack, cast, "ed")).evaluate(members)
