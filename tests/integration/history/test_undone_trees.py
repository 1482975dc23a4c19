"""What Yjs' undo makes of trees in which others undo too: it is taken, and everybody reads the same."""

import json
import subprocess
from typing import Any

import pytest
from pycrdt import Doc, XmlFragment

from documents.models import Document
from history.append import append
from history.crdt.guard import Guard
from history.crdt.order import Astray
from history.fates import PendingUpdate, Stored
from history.folds import document_at
from history.gate import Gate
from history.models import Update
from tests.builders import make_document, make_session
from tests.clients.driver import HERE, install_packages, node_binary

pytestmark = pytest.mark.django_db(transaction=True)

NODE_SECONDS = 60.0
FIRST_SEED, HISTORIES = 1, 100


def ask_yjs(*questions: dict[str, Any]) -> list[Any]:
    """What tests/clients/tree_histories.mjs answers to each."""
    install_packages()
    asked = "".join(f"{json.dumps(question)}\n" for question in questions)
    command = [str(node_binary()), str(HERE / "tree_histories.mjs")]
    done = subprocess.run(
        command, input=asked, cwd=HERE, check=True, capture_output=True, text=True, timeout=NODE_SECONDS
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def goes_astray(rows: list[bytes]) -> bool:
    guard = Guard()
    try:
        for row in rows:
            guard.commit(guard.check(row))
    except Astray:
        return True
    return False


def write(document: Document, rows: list[bytes]) -> list[str]:
    """Log a history as rooms of two processes do; return the payloads (hex)."""
    mine, other, session = Gate.load(document.pk), Gate.load(document.pk), make_session(document)
    for row in rows:
        taken = mine.take(row, session)
        if taken is not None:
            (fate,) = append([PendingUpdate(session=session, payload=taken.update)])
            assert isinstance(fate, Stored)
            mine.follow(fate.seq, taken.update, known=True)
            other.follow(fate.seq, taken.update, known=False)
    assert str(other.intake.get("x", type=XmlFragment)) == str(mine.intake.get("x", type=XmlFragment))
    return [
        bytes(payload).hex()
        for payload in Update.objects.order_by("seq").filter(document=document).values_list("payload", flat=True)
    ]


def test_blocks_that_two_people_bring_back_among_each_other_stand_alike_for_who_saw_it_and_who_loads_it() -> None:
    (recorded,) = ask_yjs({"first_seed": FIRST_SEED, "count": HISTORIES})
    histories = [rows for rows in ([bytes.fromhex(row) for row in each] for each in recorded) if goes_astray(rows)]
    assert len(histories) >= 2
    for rows in histories:
        document = make_document()
        payloads = write(document, rows)
        theirs, ours = ask_yjs({"rows": [row.hex() for row in rows]}, {"rows": payloads})
        now = document_at(document.pk).doc
        loaded: Doc[Any] = Doc()
        loaded.apply_update(now.get_update())
        read = {str(doc.get("x", type=XmlFragment)) for doc in (now, loaded)}
        assert read == {theirs["grown"]} == {ours["grown"]} == {ours["loaded"]}
