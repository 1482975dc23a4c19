"""The writing page in a real browser, together with a stock Yjs client from npm."""

import os
from collections.abc import AsyncIterator

import pytest
from django.conf import settings

from tests.browser.chromium import Browser, Page, running_browser
from tests.clients.driver import NodeClients
from tests.clients.people import Cast, a_cast
from tests.clients.stack import Stack, a_room

pytestmark = pytest.mark.skipif(os.environ.get("NO_BROWSER") == "1", reason="NO_BROWSER=1")

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
    return f"{EDITOR}.innerText.includes({text!r})"


async def test_two_pages_and_a_stock_client_type_together(
    members_stack: Stack, node: NodeClients, browser: Browser, cast: Cast
) -> None:
    stock = await members_stack.join(node, "stock", cast.room, headers=cast.cookies["ed"], types={"content": "text"})
    await stock.type("From Node. ", root="content")
    olga = await page_of(browser, members_stack, cast, "olga")
    ed = await page_of(browser, members_stack, cast, "ed")
    for page in (olga, ed):
        await page.wait(shows("From Node."))

    await type_at_the_end(olga, "Olga writes. ")
    await ed.wait(shows("Olga writes."))
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
