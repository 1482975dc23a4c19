"""What a document holds is shown as text, wherever it lands in a page."""

from html.parser import HTMLParser
from typing import Any

import pytest
from django.urls import reverse
from pycrdt import Array, Map, Text, XmlElement, XmlFragment, XmlText

from documents.models import Membership, Role
from history.models import Via
from history.pages.rendering import ContentHtml
from history.versions import name_version
from tests.integration.history_pages.builders import Shared, a_document, a_shared_document, a_user, signed_in

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"


class Elements(HTMLParser):
    """All elements of a page with their attributes, as a browser would make them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(html: str) -> None:
    """No element, handler or address in the page comes from a document or a name."""
    for tag, attributes in Elements(html).found:
        assert tag != "img" or (attributes.get("src") or "").startswith("/static/")
        assert tag != "script" or (attributes.get("src") or "").endswith(".js"), "a script that is ours has a src"
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        address = (attributes.get("href") or attributes.get("src") or attributes.get("action") or "").lower()
        assert not address.startswith(("javascript:", "data:"))
    assert "alert(1)" not in html.replace("&lt;script&gt;alert(1)", "")


def without_harmless(html: str) -> str:
    """Without what stands in the document as text and is no attack where it stands."""
    return html.replace("alert(1)&lt;br&gt;", "").replace("javascript:alert(1)", "")


@pytest.fixture
def attacked() -> Shared:
    """Attacks in the title, in a user name, and in every place of every type of root."""
    shared = a_shared_document(title=ATTACK)
    mallory = a_user(f"mallory{ATTACK}")
    Membership.objects.create(document=shared.document, user=mallory, role=Role.EDITOR)
    doc = shared.doc
    text = doc.get(f"text{ATTACK}", type=Text)
    values = doc.get("map", type=Map)
    array = doc.get("array", type=Array)
    xml = doc.get("xml", type=XmlFragment)
    link = {"link": "javascript:alert(1)", ATTACK: ATTACK, "bold": True}
    shared.edit(mallory, lambda: text.insert(0, ATTACK, link))
    shared.edit(mallory, lambda: text.insert_embed(0, {"image": ATTACK}))
    shared.edit(mallory, lambda: values.update({ATTACK: {"k": ATTACK}, "text": Text(ATTACK)}))
    shared.edit(mallory, lambda: array.extend([ATTACK, [ATTACK], Map({"k": ATTACK})]))
    element = XmlElement(ATTACK, {ATTACK: ATTACK, "href": "javascript:alert(1)"}, [XmlText(ATTACK)])
    shared.edit(mallory, lambda: xml.children.append(element))
    shared.edit(mallory, lambda: xml.children.append(XmlElement("script", {}, [XmlText("alert(1)<br>")])))
    return shared


@pytest.mark.django_db
def test_nothing_of_a_document_or_a_name_becomes_markup(attacked: Shared) -> None:
    root = signed_in(a_user("root", is_staff=True, is_superuser=True))
    pages_that_ask = [attacked.restore_urls()[name] for name in ("page", "admin")]
    for seq in range(attacked.head_seq + 1):
        for url in (*(attacked.urls()[name] for name in ("page", "admin")), *pages_that_ask):
            html = root.get(url, {"seq": seq}).content.decode()
            assert_harmless(without_harmless(html))
    for name in ("admin:history_edit_changelist", "admin:history_documenthistory_changelist"):
        assert_harmless(root.get(reverse(name)).content.decode())
    echo = root.get(reverse("admin:history_edit_changelist"), {"document": ATTACK, "user": ATTACK, "since": ATTACK})
    assert_harmless(echo.content.decode())


@pytest.mark.django_db
@pytest.mark.parametrize("show", ["changes", "now", "compare", "authors"])
def test_nothing_becomes_markup_in_any_view_of_a_moment(attacked: Shared, show: str) -> None:
    root = signed_in(a_user("root", is_staff=True, is_superuser=True))
    text = attacked.doc.get(f"text{ATTACK}", type=Text)
    values = attacked.doc.get("map", type=Map)
    attacked.edit(attacked.editor, lambda: text.format(1, 4, {"color": ATTACK}))
    attacked.edit(attacked.editor, lambda: values.update({ATTACK: Array([ATTACK]), "text": ATTACK}))
    attacked.edit(attacked.editor, lambda: text.__delitem__(slice(0, 4)))
    name_version(attacked.document, name=ATTACK, note=ATTACK, seq=3, actor=attacked.owner)
    for url in (attacked.urls()["page"], attacked.urls()["admin"]):
        query: dict[str, Any]
        for seq in range(attacked.head_seq + 1):
            query = {"seq": seq, "show": show, "from": 2, "deleted": 1}
            assert_harmless(without_harmless(root.get(url, query).content.decode()))
        for name in ("show", "from", "before", "deleted"):
            query = {"seq": 3, "show": show, name: ATTACK}
            assert_harmless(without_harmless(root.get(url, query).content.decode()))


@pytest.mark.django_db
def test_the_api_gives_content_as_json_that_no_browser_takes_for_a_page(attacked: Shared) -> None:
    answer = signed_in(attacked.viewer).get(attacked.urls()["content"])
    assert answer["Content-Type"] == "application/json"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer.json()["content"]["array"]["value"][0] == ATTACK


def rendered(content: dict[str, Any]) -> str:
    return str(ContentHtml(characters_max=1000).root(content))


def test_text_shows_its_formats_and_names_those_that_have_no_look() -> None:
    delta = [
        {"insert": "plain "},
        {"insert": "loud", "attributes": {"bold": True, "italic": {}}},
        {"insert": " off", "attributes": {"bold": False}},
        {"insert": " red", "attributes": {"color": "red"}},
    ]
    assert rendered({"type": "text", "text": "", "delta": delta}) == (
        '<div class="prose">plain <strong><em>loud</em></strong> off'
        '<span class="format" title="color: red"> red</span></div>'
    )


def test_xml_is_nested_blocks_with_their_tags_and_attributes() -> None:
    words = {"type": "text", "delta": [{"insert": "Roof"}], "attributes": {}}
    break_ = {"type": "element", "tag": "hardBreak", "attributes": {}, "children": []}
    heading = {"type": "element", "tag": "heading", "attributes": {"level": 1}, "children": [words, break_]}
    assert rendered({"type": "xml", "children": [heading], "text": ""}) == (
        '<div class="blocks"><div class="block heading"><span class="tag">heading '
        '<span class="attribute">level=1</span></span>'
        '<div class="inside"><span class="words">Roof</span><br></div></div></div>'
    )


def test_maps_and_arrays_are_indented_json() -> None:
    assert rendered({"type": "map", "value": {"a": [1, "é"]}}) == (
        '<pre class="json" tabindex="0">{\n  &quot;a&quot;: [\n    1,\n    &quot;é&quot;\n  ]\n}</pre>'
    )


@pytest.mark.parametrize(
    "empty", [{"type": "text", "text": "", "delta": []}, {"type": "map", "value": {}}, {"type": "array", "value": []}]
)
def test_a_root_that_holds_nothing_shows_nothing(empty: dict[str, Any]) -> None:
    assert rendered(empty) == ""


def test_what_is_shown_is_bounded_and_what_is_open_is_closed() -> None:
    node: dict[str, Any] = {"type": "element", "tag": "p", "attributes": {}, "children": []}
    node["children"] = [{"type": "text", "delta": [{"insert": "x" * 50, "attributes": {"bold": True}}]}] * 9
    html = ContentHtml(characters_max=161)  # the p takes 21, each text 20 and its strong 20
    shown = html.root({"type": "xml", "children": [node], "text": ""})
    assert html.is_cut
    assert shown.count("x") == 60
    assert shown.count("<div") == shown.count("</div>")
    assert shown.count("<strong>") == shown.count("</strong>")


BREAK: dict[str, Any] = {"type": "element", "tag": "br", "attributes": {}, "children": []}
LETTER: dict[str, Any] = {"type": "xmltext", "delta": [{"insert": "x"}]}


@pytest.mark.parametrize(
    "root",
    [
        {"type": "xml", "children": [BREAK] * 5000, "text": ""},
        {"type": "xml", "children": [LETTER] * 5000, "text": ""},
        {"type": "text", "delta": [{"insert": 1}] * 5000, "text": ""},
    ],
    ids=["breaks", "letters", "embeds"],
)
def test_many_small_pieces_are_bounded_by_their_markup(root: Any) -> None:
    html = ContentHtml(characters_max=1000)
    assert len(html.root(root)) < 5000
    assert html.is_cut


@pytest.mark.django_db
def test_a_document_too_long_for_a_page_is_cut_and_leads_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("history.pages.rendering.CHARACTERS_MAX", 10)
    owner = a_user("owner")
    shared = Shared(a_document(owner), owner, owner, owner)
    shared.type(owner, "x" * 100, via=Via.API)
    client = signed_in(owner)
    page = client.get(shared.urls()["page"]).content.decode()
    assert "x" * 11 not in page
    assert f"{shared.urls()['content']}?seq=1" in page
    assert client.get(shared.urls()["content"]).json()["content"]["text"]["text"] == "x" * 100
