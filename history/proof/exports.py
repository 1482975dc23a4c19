"""A document's whole history as a stream of lines: to keep, to move, and to prove without this project or its database.

JSON Lines: the document, its sessions, each row of its log with its hash, its versions, whose its client ids are, its
requests and members, the end. It is proven on the way: the chain is recomputed and leads to the head, or there is no
end line."""

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from documents.models import Document, Membership, Role
from history.crdt.chain import GENESIS, commitment, row_hash
from history.errors import HistoryError
from history.imported_authors import ImportedAuthors
from history.log import LogRow, consistent_read, head_of, read_log
from history.models import Client, Head, Request, Session, Version
from history.sessions import canonical_ip
from history.times import microseconds

FORMAT = "palimpsest-document-2"

SESSIONS_PER_FETCH = 2000


class NotExported(HistoryError):
    """The log is not what its hashes say: what was given out so far is not whole, and has no end line."""

    def __init__(self, document_id: int, what: str) -> None:
        super().__init__(f"document {document_id}: {what}; run `manage.py verify_history`")
        self.document_id = document_id


def export_document(document_id: int, *, pseudonymous: bool = False) -> Iterator[str]:
    """The lines of a document's history at this moment, each with its line feed; ASCII. Equal histories, equal lines.

    `pseudonymous` leaves out who and from where (user, name, address, browser, salt, detail): the chain can be
    recomputed all the same, as it knows the sessions' commitments only. Holds a page of rows and 32 bytes a session in
    memory, and one snapshot of the database until the last line is taken. Raises: Document.DoesNotExist, LogHole,
    NotExported."""
    with consistent_read():
        document = Document.objects.get(pk=document_id)
        head = head_of(document_id)
        yield _line("document", _document(document, head))
        commitments: dict[int, bytes] = {}
        authors = ImportedAuthors.of(document_id)
        sessions = Session.objects.filter(document_id=document_id).select_related("user").order_by("id")
        for session in sessions.iterator(chunk_size=SESSIONS_PER_FETCH):
            commitments[session.id] = bytes(session.commitment)
            yield _line("session", _session(session, authors, pseudonymous=pseudonymous))
        hash_ = GENESIS
        for row in read_log(document_id, until=head.seq):
            if row.session_id not in commitments:
                raise NotExported(document_id, f"seq {row.seq}: its session is missing")
            hash_ = _hash_of(hash_, row, document=document, commitment=commitments[row.session_id])
            yield _line("row", _row(row, hash_))
        if hash_ != bytes(head.hash):
            raise NotExported(document_id, "the rows do not lead to the head's hash")
        versions = 0
        named = Version.objects.filter(document_id=document_id).select_related("created_by").order_by("id")
        for version in named.iterator(chunk_size=SESSIONS_PER_FETCH):
            versions += 1
            yield _line("version", _version(version, pseudonymous=pseudonymous))
        counts = {"sessions": len(commitments), "rows": head.seq, "versions": versions}
        counts |= {"clients": 0, "requests": 0, "members": 0}
        if not pseudonymous:
            for kind, fields in _belongings(document_id):
                counts[f"{kind}s"] += 1
                yield _line(kind, fields)
        yield _line("end", counts)


def _belongings(document_id: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a document needs besides to go on elsewhere: whose its client ids are, which acts were asked for under a
    key, and who may do what. Kind of line and fields of each."""
    clients = Client.objects.filter(document_id=document_id).order_by("client_id")
    for client, who in _with_actors(clients.values_list("client_id", "actor").iterator()):
        yield "client", {"client": client, **who}
    requests = Request.objects.filter(document_id=document_id).order_by("actor", "key")
    columns = requests.values_list("key", "seq", "actor")
    for (key, seq), who in _with_actors(((key, seq), actor) for key, seq, actor in columns.iterator()):
        yield "request", {"key": key, "seq": seq, **who}
    memberships = Membership.objects.filter(document_id=document_id).select_related("user").order_by("user_id")
    for membership in memberships.iterator(chunk_size=SESSIONS_PER_FETCH):
        yield "member", {"role": Role(membership.role).label, **_who(membership.user)}


Item = TypeVar("Item")


def _with_actors(items: Iterable[tuple[Item, str]]) -> Iterator[tuple[Item, dict[str, str]]]:
    """Things with an account's key as text, each with that and the account's name, which is empty where it is gone."""
    rest = iter(items)
    while page := list(islice(rest, SESSIONS_PER_FETCH)):
        names = _names({actor for _, actor in page if actor})
        for item, actor in page:
            yield item, {"user": actor, "username": names.get(actor, "")}


def _names(actors: Iterable[str]) -> dict[str, str]:
    model: Any = get_user_model()
    keys = []
    for actor in actors:
        with suppress(ValidationError):
            keys.append(model._meta.pk.to_python(actor))  # noqa: SLF001 (Django documents it)
    accounts = model._base_manager.in_bulk(keys)  # noqa: SLF001 (public, despite its name)
    return {str(key): account.get_username() for key, account in accounts.items()}


def _line(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({"line": kind, **fields}, separators=(",", ":")) + "\n"


def _document(document: Document, head: Head) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "document": str(document.key),
        "name": document.name,
        "title": document.title,
        "created_at_microseconds": microseconds(document.created_at),
        "epoch": head.epoch,
        "seq": head.seq,
        "hash": bytes(head.hash).hex(),
    }


def _session(session: Session, authors: ImportedAuthors, *, pseudonymous: bool) -> dict[str, Any]:
    said = {
        "id": session.id,
        "via": session.via,
        "commitment": bytes(session.commitment).hex(),
        "opened_at_microseconds": microseconds(session.opened_at),
    }
    if pseudonymous:
        return said
    who = _who(session.user)
    if session.user is not None and authors.matched:
        who["user"] = _committed_key(session, authors)
    return said | {
        **who,
        "ip": canonical_ip(session.ip) or "",
        "salt": bytes(session.salt).hex(),
        "user_agent": session.user_agent,
        "detail": session.detail,
    }


def _committed_key(session: Session, authors: ImportedAuthors) -> str:
    salt, ip = bytes(session.salt), canonical_ip(session.ip) or ""
    return authors.key_of(
        session.user_id,
        lambda key: commitment(salt=salt, user=key, via=session.via, ip=ip) == bytes(session.commitment),
    )


def _version(version: Version, *, pseudonymous: bool) -> dict[str, Any]:
    said = {
        "id": version.id,
        "seq": version.seq,
        "at_microseconds": None if version.at is None else microseconds(version.at),
        "name": version.name,
        "note": version.note,
        "created_at_microseconds": microseconds(version.created_at),
        "locked": version.locked,
        "automatic": version.automatic,
    }
    return said if pseudonymous else said | _who(version.created_by)


def _who(user: Any | None) -> dict[str, str]:
    """An account, empty for nobody: its key as the chain knows it, and its name, which no hash covers."""
    return {"user": "" if user is None else str(user.pk), "username": "" if user is None else user.get_username()}


def _row(row: LogRow, hash_: bytes) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "kind": row.kind,
        "at_microseconds": microseconds(row.at),
        "session": row.session_id,
        "payload": base64.b64encode(row.payload).decode(),
        "hash": hash_.hex(),
    }


def _hash_of(previous: bytes, row: LogRow, *, document: Document, commitment: bytes) -> bytes:
    return row_hash(
        previous,
        document_key=document.key.bytes,
        seq=row.seq,
        kind=row.kind,
        at_microseconds=microseconds(row.at),
        session_commitment=commitment,
        payload=row.payload,
    )
