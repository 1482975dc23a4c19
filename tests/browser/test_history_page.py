"""The history page in a real browser: the slider upon the strip, and the views of a moment."""

import os
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from pycrdt import Doc, Text

from history.models import Via
from history.writes import append_update, write_session
from tests.browser.chromium import Browser, Page, running_browser
from tests.clients.people import Cast, a_cast
from tests.clients.stack import Stack, a_room
from tests.histories import updates_of

pytestmark = pytest.mark.skipif(os.environ.get("NO_BROWSER") == "1", reason="NO_BROWSER=1")

PIECES = ("one ", "two ", "three ", "four ")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as running:
        yield running


@pytest.fixture
async def cast(members_stack: Stack) -> Cast:
    """A document that its owner wrote in four sessions: four runs."""

    def written() -> Cast:
        cast = a_cast(a_room("history"))
        doc: Doc[Any] = Doc(client_id=1)
        text = doc.get("content", type=Text)
        for piece in PIECES:
            (update,) = updates_of(doc, partial(text.insert, len(str(text)), piece))
            append_update(write_session(cast.document, actor=cast.document.created_by, via=Via.API), update)
        return cast

    return await members_stack.database.run(written)


async def history_of(browser: Browser, stack: Stack, cast: Cast, query: str = "") -> Page:
    key = cast.cookies["vic"]["Cookie"].partition("=")[2]
    url = f"{stack.http_url}/d/{cast.document.key}/history/{query}"
    page = await browser.new_page(url, cookies={settings.SESSION_COOKIE_NAME: key})
    await page.wait("document.querySelector('#seq-range')?.disabled === false")
    return page


def at(seq: int) -> str:
    return f"document.querySelector('.moment-bar').dataset.seq === '{seq}'"


def paper(words: str) -> str:
    return f"document.querySelector('.paper').innerText.trim() === {words!r}"


async def slide_to(page: Page, seq: int) -> None:
    await page.evaluate(
        f"(range => {{ range.value = {seq}; range.dispatchEvent(new Event('input', {{ bubbles: true }})) }})"
        "(document.querySelector('#seq-range'))"
    )


async def click(page: Page, selector: str) -> None:
    click = (
        "new MouseEvent('click', { bubbles: true, cancelable: true })"  # an SVG's links have no click() of their own
    )
    await page.evaluate(f"document.querySelector({selector!r}).dispatchEvent({click})")


async def test_the_slider_goes_through_the_whole_life_and_keeps_the_view(
    members_stack: Stack, browser: Browser, cast: Cast
) -> None:
    page = await history_of(browser, members_stack, cast)
    await page.evaluate("window.isTheSamePage = true")
    await slide_to(page, 2)
    await page.wait(f"{at(2)} && {paper('one two')}")
    await click(page, ".view-tab[href*='show=now']")
    await page.wait("Array.from(document.querySelectorAll('.paper ins'), (e) => e.innerText).join() === 'three four '")
    await slide_to(page, 3)
    await page.wait(f"{at(3)} && document.querySelector('.paper ins').innerText === 'four '")
    assert await page.evaluate("location.search") == "?show=now&seq=3"
    await click(page, ".flag, .stretch[data-seq='1']")
    await page.wait(f"{at(1)} && document.querySelector('.view-tab[aria-current]').href.includes('show=now')")
    assert await page.evaluate("isTheSamePage && document.querySelector('#seq-number').value") == "1"


async def test_play_goes_from_run_to_run_up_to_now(members_stack: Stack, browser: Browser, cast: Cast) -> None:
    page = await history_of(browser, members_stack, cast, "?seq=0&show=authors")
    await page.evaluate(
        "window.seen = []; new MutationObserver(() => seen.push(document.querySelector('.moment-bar')?.dataset.seq))"
        ".observe(document.querySelector('#moment'), { childList: true })"
    )
    await page.evaluate("document.querySelector('#play').click()")
    await page.wait(f"{at(len(PIECES))} && document.querySelector('#play').textContent === 'Play'")
    assert await page.evaluate("seen") == ["1", "2", "3", "4"]
    assert await page.evaluate("document.querySelector('.paper .by').innerText.trim()") == "one two three four"


async def test_play_is_offered_only_where_it_plays(members_stack: Stack, browser: Browser, cast: Cast) -> None:
    offered = "document.querySelector('#play').getClientRects().length"
    page = await history_of(browser, members_stack, cast)
    assert await page.evaluate(offered) == 1
    calm = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    await page.call("Emulation.setEmulatedMedia", features=calm)
    await page.evaluate("window.isTheOldPage = true; location.reload()")
    await page.wait("!window.isTheOldPage && document.querySelector('#seq-range')?.disabled === false")
    assert await page.evaluate(offered) == 0


async def test_nothing_of_the_page_is_refused_by_its_own_policy(
    members_stack: Stack, browser: Browser, cast: Cast
) -> None:
    page = await history_of(browser, members_stack, cast)
    assert await page.evaluate("Array.from(document.querySelectorAll('.stretch rect')).length") == len(PIECES)
    assert await page.evaluate("document.querySelector('.stretch rect').getBoundingClientRect().width > 20")
    drawn = "getComputedStyle(document.querySelector('.stretch rect')).fill"
    told = "getComputedStyle(document.querySelector('.run-link')).borderLeftColor"
    assert await page.evaluate(drawn) == await page.evaluate(told)
