"""Imported documents in a deployment: stock editors open them, see what was in the store or export, and write on."""

import io
from pathlib import Path

from django.contrib.auth.models import User
from django.core.management import call_command

from documents.models import Document
from history.models import Kind
from history.proof.exports import export_document
from tests.clients.driver import NodeClients
from tests.clients.people import a_cast
from tests.clients.stack import Stack, a_room, assert_log_holds
from tests.foreign_stores import write_sqlite


def an_import(*arguments: str) -> None:
    call_command("import_documents", *arguments, stdout=io.StringIO())


def moved_through_an_export(name: str, path: Path) -> None:
    """The document goes, and comes back from its export."""
    document = Document.objects.get(name=name)
    path.write_text("".join(export_document(document.pk)))
    document.delete()
    an_import("palimpsest", str(path))


def name_of(user_id: int) -> str:
    return User.objects.get(pk=user_id).get_username()


async def test_what_is_imported_is_opened_and_written_on(
    members_stack: Stack, node: NodeClients, tmp_path: Path
) -> None:
    run = members_stack.database.run
    cast = await run(a_cast, a_room("source"))
    ed = await members_stack.join(node, "ed", cast.room, on=0, headers=cast.cookies["ed"])
    await ed.random(seed=11, count=80)
    await ed.type("kept 😀 words")
    vic = await members_stack.join(node, "vic", cast.room, on=1, headers=cast.cookies["vic"])
    before = await node.converged(ed, vic)

    room = a_room("imported")
    store = tmp_path / "ystore.db"
    updates = [row.payload for row in members_stack.database.rows(cast.room) if row.kind is not Kind.SPLIT]
    await run(write_sqlite, store, {room: updates}, gap=0.001)
    owner = await run(name_of, cast.user_ids["olga"])
    await run(an_import, "pycrdt", str(store), "--owner", owner)
    await run(moved_through_an_export, room, tmp_path / "export.jsonl")

    olga = await members_stack.join(node, "olga", room, on=1, headers=cast.cookies["olga"])
    again = await members_stack.join(node, "olga again", room, on=0, headers=cast.cookies["olga"])
    assert await node.converged(olga, again) == before
    await olga.type(" of Olga's")
    await again.watch(" of Olga's")
    await olga.random(seed=12, count=40)
    await assert_log_holds(members_stack, node, room, olga, again)
