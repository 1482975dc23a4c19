"""The editors of docs/clients.md, bundled from the page as it stands, in a real browser: two people at each of them."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import RequestFactory
from django.utils import timezone

from documents.tickets import issue_ticket
from tests.browser.bundling import Bundle, bundle_of
from tests.browser.chromium import Browser, Page, running_browser
from tests.browser.elsewhere import front_end
from tests.clients.people import Cast, a_cast
from tests.clients.stack import Stack, a_room
from tests.documented import shown

pytestmark = pytest.mark.skipif(os.environ.get("NO_BROWSER") == "1", reason="NO_BROWSER=1")

UNDO_PRESSES_MAX = 20
INVISIBLE = r"/[\u2060\u200b\ufeff]/g"
"""What bindings put around carets, as a JavaScript expression."""

PAGE = """(styles) => {
  window.complaints = []
  addEventListener('error', (event) => complaints.push(event.message))
  addEventListener('unhandledrejection', (event) => complaints.push(String(event.reason)))
  for (const level of ['warn', 'error']) console[level] = (...said) => complaints.push(said.map(String).join(' '))
  document.body.innerHTML = '<div id="editor"></div><p id="state"></p>'
  document.head.append(Object.assign(document.createElement('style'), { textContent: styles }))
}"""
"""A page with the places that the snippets name. What a binding warns of is kept for the tests."""


@dataclass(frozen=True, slots=True)
class Editor:
    """How an editor of the page looks in the DOM: where one types, and the carets of others with their names."""

    heading: str
    paper: str
    caret: str
    name: str
    bold: str
    """The element of bold text; empty where there are no formats."""

    def says(self, text: str, within: str = "") -> str:
        """A JavaScript condition: the editor, or the first `within` it, has this text, without the carets of others."""
        return f"""((place) => {{
          const copy = place?.cloneNode(true)
          copy?.querySelectorAll('{self.caret}').forEach((caret) => caret.remove())
          return copy?.textContent.replace(/\\u00a0/g, ' ').replace({INVISIBLE}, '') === {json.dumps(text)}
        }})(document.querySelector('{self.paper} {within}'))"""

    def shows_caret_of(self, person: str) -> str:
        name = f"caret.textContent.replace({INVISIBLE}, '') === {json.dumps(person)}"
        return f"[...document.querySelectorAll('{self.name}')].some((caret) => {name})"


EDITORS = [
    Editor("Tiptap", ".tiptap", ".collaboration-carets__caret", ".collaboration-carets__label", "strong"),
    Editor("ProseMirror", ".ProseMirror", ".ProseMirror-yjs-cursor", ".ProseMirror-yjs-cursor", "strong"),
    Editor("CodeMirror 6", ".cm-content", ".cm-ySelectionCaret", ".cm-ySelectionInfo", ""),
    Editor("Quill 2", ".ql-editor", ".ql-cursor", ".ql-cursor-name", "strong"),
]
TIPTAP, _, CODEMIRROR, _ = EDITORS


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as running:
        yield running


@pytest.fixture
async def cast(members_stack: Stack) -> Cast:
    return await members_stack.database.run(a_cast, a_room("editors"))


async def bundle_for(
    stack: Stack,
    cast: Cast,
    *headings: str,
    first: str = "The first lines",
    aliases: Mapping[str, str] | None = None,
) -> Bundle:
    """The first lines of the page, then what stands under these headings; the page can be asked for both objects."""
    parts = [shown(heading, "js", http_url=stack.http_url, room=cast.room) for heading in (first, *headings)]
    return await bundle_of("\n".join([*parts, "Object.assign(globalThis, { doc, provider })"]), aliases)


async def open_page(browser: Browser, stack: Stack, cast: Cast, name: str, bundle: Bundle) -> Page:
    """A page of the server's own origin, as this person has it open: the session cookie says who it is."""
    key = cast.cookies[name]["Cookie"].partition("=")[2]
    url = f"{stack.http_url}/healthz"
    page = await browser.new_page(url, cookies={settings.SESSION_COOKIE_NAME: key}, bypass_csp=True)
    await page.call("Emulation.setFocusEmulationEnabled", enabled=True)  # both have the focus, as on two screens
    await page.wait("document.readyState === 'complete' && location.pathname === '/healthz'")
    await run_on(page, bundle)
    return page


async def run_on(page: Page, bundle: Bundle) -> None:
    """Let the bundle run on an empty page."""
    await page.evaluate(f"({PAGE})({json.dumps(bundle.styles)})")
    await page.evaluate(f"{bundle.script}; 0")


def is_selecting(person: str) -> str:
    """Their selection, not only a caret, has come over: the editor in which they made it has taken notice of it."""
    return f"""[...provider.awareness.getStates().values()].some(({{ user, cursor }}) =>
      user?.name === {json.dumps(person)} && cursor
      && JSON.stringify(cursor.anchor) !== JSON.stringify(cursor.head))"""


async def type_at_the_end(page: Page, editor: Editor, text: str) -> None:
    await page.wait("globalThis.provider?.synced")
    await page.evaluate(f"document.querySelector('{editor.paper}').focus()")
    await page.press_control_end()
    await page.press_each(text)


async def authors_of(stack: Stack, cast: Cast) -> dict[str, str]:
    """Who wrote what of the text, as the history tells: text → name."""
    answer = json.loads(await stack.get(f"/api/v1/documents/{cast.document.key}/blame", **cast.cookies["olga"]))
    names = {int(number): writing["author"] for number, writing in answer["writings"].items()}
    written: dict[str, str] = {}
    for run in runs_in(answer["content"]):
        if isinstance(run.get("insert"), str):
            written[names[run["by"]]] = written.get(names[run["by"]], "") + run["insert"]
    return written


def runs_in(content: Any) -> list[dict[str, Any]]:
    """Every object with `insert` in a blame, in order."""
    if isinstance(content, dict):
        return [content] if "insert" in content else [run for value in content.values() for run in runs_in(value)]
    return [run for value in content for run in runs_in(value)] if isinstance(content, list) else []


@pytest.mark.parametrize("editor", EDITORS, ids=lambda editor: editor.heading)
async def test_two_people_type_format_and_undo_and_see_each_other(
    members_stack: Stack, browser: Browser, cast: Cast, editor: Editor
) -> None:
    bundle = await bundle_for(members_stack, cast, editor.heading)
    olga, ed = [await open_page(browser, members_stack, cast, name, bundle) for name in ("olga", "ed")]

    await type_at_the_end(olga, editor, "Olga was here")
    await ed.wait(editor.says("Olga was here"))
    await ed.wait(editor.shows_caret_of(f"olga of {cast.room}"))
    await type_at_the_end(ed, editor, " and Ed as well")
    await olga.wait(editor.says("Olga was here and Ed as well"))
    await olga.wait(editor.shows_caret_of(f"ed of {cast.room}"))
    assert await authors_of(members_stack, cast) == {
        f"olga of {cast.room}": "Olga was here",
        f"ed of {cast.room}": " and Ed as well",
    }

    if editor.bold:
        await ed.press("ArrowLeft", control=True, shift=True)
        await olga.wait(is_selecting(f"ed of {cast.room}"))
        await ed.press("b", control=True)
        await olga.wait(editor.says("well", within=editor.bold))

    for _ in range(UNDO_PRESSES_MAX):
        if await olga.evaluate(editor.says(" and Ed as well")):
            break
        await olga.press("z", control=True)
    await ed.wait(editor.says(" and Ed as well"))
    assert [await page.evaluate("complaints") for page in (olga, ed)] == [[], []]


async def test_a_front_end_elsewhere_comes_with_tickets_and_fetches_another_when_one_has_expired(
    members_stack: Stack, browser: Browser, cast: Cast
) -> None:
    def expired() -> str:
        ed = User.objects.get(pk=cast.user_ids["ed"])
        return issue_ticket(ed, cast.document, now=timezone.now() - timedelta(days=1)).text

    def good() -> str:
        page_of: dict[str, Any] = {}
        exec(shown("Who it is", "python", http_url=members_stack.http_url, room=cast.room), page_of)
        request = RequestFactory().get("/ticket")
        request.user = User.objects.get(pk=cast.user_ids["ed"])
        return str(page_of["ticket"](request).content.decode())

    tickets = [await members_stack.database.run(made) for made in (expired, good)]
    given: list[str] = []

    def next_ticket() -> str:
        given.append(tickets[min(len(given), 1)])
        return given[-1]

    bundle = await bundle_for(members_stack, cast, "CodeMirror 6", first="Who it is")
    olga = await open_page(browser, members_stack, cast, "olga", await bundle_for(members_stack, cast, "CodeMirror 6"))
    with front_end(bundle, next_ticket) as url:
        page = await browser.new_page(url, cookies={})
        await type_at_the_end(page, CODEMIRROR, "From elsewhere")
        await olga.wait(CODEMIRROR.says("From elsewhere"))
    assert given == tickets
    assert await authors_of(members_stack, cast) == {f"ed of {cast.room}": "From elsewhere"}


@pytest.mark.parametrize("provider", ["@hocuspocus/provider", "hocuspocus-provider-3"])
async def test_tiptap_on_hocuspocus_tells_what_is_saved_and_writes_together_with_y_websocket(
    members_stack: Stack, browser: Browser, cast: Cast, provider: str
) -> None:
    def ticket_of(name: str) -> str:
        return issue_ticket(User.objects.get(pk=cast.user_ids[name]), cast.document).text

    ed_ticket, vic_ticket = [await members_stack.database.run(ticket_of, name) for name in ("ed", "vic")]
    olga = await open_page(browser, members_stack, cast, "olga", await bundle_for(members_stack, cast, "Tiptap"))
    bundle = await bundle_for(
        members_stack, cast, "Tiptap", first="Hocuspocus", aliases={"@hocuspocus/provider": provider}
    )
    with front_end(bundle, lambda: ed_ticket) as eds, front_end(bundle, lambda: vic_ticket) as vics:
        ed, vic = [await browser.new_page(url, cookies={}) for url in (eds, vics)]
        await type_at_the_end(ed, TIPTAP, "Ed was here")
        await ed.wait(tells("saved"))
        assert {row.user_id for row in members_stack.database.rows(cast.room)} == {cast.user_ids["ed"]}
        await olga.wait(TIPTAP.says("Ed was here"))
        await olga.wait(TIPTAP.shows_caret_of(f"ed of {cast.room}"))
        await type_at_the_end(olga, TIPTAP, " and Olga as well")
        await ed.wait(TIPTAP.says("Ed was here and Olga as well"))
        await ed.wait(TIPTAP.shows_caret_of(f"olga of {cast.room}"))

        await vic.wait(f"{TIPTAP.says('Ed was here and Olga as well')} && provider.authorizedScope === 'readonly'")
        await type_at_the_end(vic, TIPTAP, "!")
        await vic.wait(f"{tells('saving')} && provider.hasUnsyncedChanges")
    assert await authors_of(members_stack, cast) == {
        f"ed of {cast.room}": "Ed was here",
        f"olga of {cast.room}": " and Olga as well",
    }


async def test_a_reader_is_told_that_an_edit_was_not_saved_and_a_stranger_that_the_door_is_closed(
    members_stack: Stack, browser: Browser, cast: Cast
) -> None:
    bundle = await bundle_for(members_stack, cast, "CodeMirror 6", "What the page should tell")
    olga, vic, stranger = [
        await open_page(browser, members_stack, cast, name, bundle) for name in ("olga", "vic", "stranger")
    ]
    await type_at_the_end(olga, CODEMIRROR, "Read this")
    await vic.wait(f"{CODEMIRROR.says('Read this')} && {tells('up to date')}")
    await type_at_the_end(vic, CODEMIRROR, "!")
    await vic.wait(tells("not saved: "))
    await stranger.wait(tells("closed (4404): "))

    await type_at_the_end(olga, CODEMIRROR, " and that")
    await vic.wait("document.querySelector('.cm-content').textContent.includes(' and that')")
    assert await olga.evaluate(CODEMIRROR.says("Read this and that"))
    assert await authors_of(members_stack, cast) == {f"olga of {cast.room}": "Read this and that"}


def tells(words: str) -> str:
    return f"document.querySelector('#state').textContent.startsWith({json.dumps(words)})"


STORED = """new Promise((resolve, reject) => {
  const opening = indexedDB.open('ada/%s')
  opening.onerror = reject
  opening.onsuccess = () => {
    const counting = opening.result.transaction('updates').objectStore('updates').count()
    counting.onsuccess = () => resolve(opening.result.close())
  }
})"""
"""Reads stand in line behind what was written before them."""


async def test_what_was_typed_offline_outlives_the_page_and_arrives_under_its_author(
    members_stack: Stack, browser: Browser, cast: Cast
) -> None:
    bundle = await bundle_for(members_stack, cast, "CodeMirror 6", "Offline")
    ed = await open_page(browser, members_stack, cast, "ed", bundle)
    await type_at_the_end(ed, CODEMIRROR, "Online")
    olga = await open_page(browser, members_stack, cast, "olga", await bundle_for(members_stack, cast, "CodeMirror 6"))
    await olga.wait(CODEMIRROR.says("Online"))

    await ed.evaluate("provider.disconnect()")
    await ed.press_each(", then not")
    await ed.evaluate(STORED % cast.room)
    await ed.evaluate("window.isTheOldPage = true; location.reload()")
    await ed.wait("!window.isTheOldPage && document.readyState === 'complete'")
    await run_on(ed, bundle)
    await olga.wait(CODEMIRROR.says("Online, then not"))
    await ed.wait(CODEMIRROR.says("Online, then not"))
    assert await authors_of(members_stack, cast) == {f"ed of {cast.room}": "Online, then not"}
