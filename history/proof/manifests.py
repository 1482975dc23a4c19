"""Manifests: the heads of all logs at one moment, signed, to be kept where the database's owner cannot change them.

JSON Lines in one canonical form: a header, a line for each document in the order of their keys, one for each audit, how
many there are, the signature. Written and read as a stream: memory does not grow with the number of documents."""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from history.errors import HistoryError
from history.models import AuditHead, Head
from history.proof.claims import AuditClaim, Claim, PublishedAudit, PublishedHead
from history.proof.signing import holds, key_id, signature
from history.times import microseconds

FORMAT = "palimpsest-manifest-1"

SIGNED_PREFIX = FORMAT.encode() + b"\n"
"""What is signed is this and the sha256 of all lines before the signature's: Ed25519 itself takes nothing by parts."""

LINE_BYTES_MAX = 4096

BLOCK_BYTES = 16 * 1024
"""Of a file, read at once. In between it is closed: years of daily manifests are more than a process may hold open."""

HEADS_PER_FETCH = 2000


class ManifestRefused(HistoryError):
    """A file is not a manifest that one of the given keys has signed."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written: `sha256` is of all that is signed, and what the next manifest calls its previous one."""

    sha256: bytes
    documents: int


def heads_of_all_documents() -> Iterator[PublishedHead]:
    """Every head, in the order of the documents' keys. One statement, thus one moment; call inside `atomic()`."""
    heads = Head.objects.order_by("document__key").values_list(
        "document__key", "epoch", "seq", "hash", "at", "document__deleted_at"
    )
    for key, epoch, seq, hash_, at, deleted_at in heads.iterator(chunk_size=HEADS_PER_FETCH):
        yield PublishedHead(
            key=key,
            epoch=epoch,
            seq=seq,
            hash=bytes(hash_),
            at_microseconds=microseconds(at),
            is_deleted=deleted_at is not None,
        )


def audits_of_all_documents() -> Iterator[PublishedAudit]:
    """The end of every audit, also of documents that are gone, in the order of their ids. Call inside `atomic()`."""
    ends = AuditHead.objects.order_by("document_id").values_list("document_id", "key", "n", "hash", "at")
    for document_id, key, n, hash_, at in ends.iterator(chunk_size=HEADS_PER_FETCH):
        yield PublishedAudit(document_id=document_id, key=key, n=n, hash=bytes(hash_), at_microseconds=microseconds(at))


def write_manifest(
    out: BinaryIO,
    heads: Iterable[PublishedHead],
    audits: Iterable[PublishedAudit] = (),
    *,
    created_at: datetime,
    previous: bytes,
    key: Ed25519PrivateKey,
) -> Written:
    """Write and sign a manifest. `heads` come in the order of their keys, `audits` in that of their ids; `previous` is
    the sha256 of the one before, empty for the first. Equal input makes equal bytes."""
    digest = hashlib.sha256()

    def write(line: dict[str, Any]) -> None:
        data = _canonical(line)
        digest.update(data)
        out.write(data)

    header = {"created_at": created_at.astimezone(UTC).isoformat(), "key": key_id(key.public_key())}
    write({"format": FORMAT, "previous": previous.hex(), **header})
    counts = {"documents": 0, "audits": 0}
    for head in heads:
        write(_line_of(head))
        counts["documents"] += 1
    for audit in audits:
        write(_line_of_audit(audit))
        counts["audits"] += 1
    write(counts)
    sha256 = digest.digest()
    out.write(_canonical({"sha256": sha256.hex(), "signature": signature(key, SIGNED_PREFIX + sha256)}))
    return Written(sha256=sha256, documents=counts["documents"])


def _canonical(line: dict[str, Any]) -> bytes:
    return json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _line_of(head: PublishedHead) -> dict[str, Any]:
    line = {
        "document": str(head.key),
        "epoch": head.epoch,
        "seq": head.seq,
        "hash": head.hash.hex(),
        "at_microseconds": head.at_microseconds,
    }
    return {**line, "deleted": True} if head.is_deleted else line


def _line_of_audit(audit: PublishedAudit) -> dict[str, Any]:
    return {
        "audit": str(audit.key),
        "id": audit.document_id,
        "n": audit.n,
        "hash": audit.hash.hex(),
        "at_microseconds": audit.at_microseconds,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """A manifest whose signature holds; `open_manifest` makes them. Its heads are read anew each time."""

    path: Path
    created_at: datetime
    previous: bytes
    sha256: bytes
    documents: int

    @property
    def name(self) -> str:
        return self.path.name

    def claims(self) -> Iterator[Claim]:
        """What it says of logs, in the order of the documents' keys.

        Raises: ManifestRefused at the end, where the file is no longer what it was when it was opened."""
        for line in self._with("document"):
            yield Claim(self.name, self.created_at, _head_of(self.path, line))

    def audit_claims(self) -> Iterator[AuditClaim]:
        """What it says of audits, in the order of the documents' ids. Raises: as `claims`."""
        for line in self._with("audit"):
            yield AuditClaim(self.name, self.created_at, _audit_of(self.path, line))

    def _with(self, field: str) -> Iterator[dict[str, Any]]:
        """The lines that have this field."""
        digest = hashlib.sha256()
        for data, is_last in _lines(self.path):
            if is_last:
                break
            digest.update(data)
            line = _parsed(self.path, data)
            if field in line:
                yield line
        if digest.digest() != self.sha256:
            raise ManifestRefused(self.path, "it changed while it was read")


def open_manifest(path: Path, *, keys: Sequence[Ed25519PublicKey]) -> ManifestFile:
    """Read a manifest through once, and prove that one of `keys` has signed all of it. Raises: ManifestRefused."""
    digest = hashlib.sha256()
    first = before_last = last = b""
    for data, is_last in _lines(path):
        if is_last:
            last = data
        else:
            digest.update(data)
            first, before_last = first or data, data
    header, end, signed = (_parsed(path, data) for data in (first, before_last, last))
    sha256 = digest.digest()
    if header.get("format") != FORMAT:
        raise ManifestRefused(path, f"it is not of the format {FORMAT}")
    if signed.get("sha256") != sha256.hex():
        raise ManifestRefused(path, "its lines are not those that were signed")
    message = SIGNED_PREFIX + sha256
    if not any(holds(key, str(signed.get("signature", "")), message) for key in keys):
        raise ManifestRefused(path, f"none of the given keys has signed it; it names the key {header.get('key')}")
    try:
        return ManifestFile(
            path=path,
            created_at=datetime.fromisoformat(header["created_at"]),
            previous=bytes.fromhex(header["previous"]),
            sha256=sha256,
            documents=int(end["documents"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ManifestRefused(path, "it is signed, but lacks what a manifest says") from None


def claims_by_document(manifests: Sequence[ManifestFile]) -> Iterator[tuple[UUID, list[Claim]]]:
    """What all manifests say, document by document in the order of their keys, for each the earliest claim first.

    Holds BLOCK_BYTES of each manifest in memory, and no file open. Raises: ManifestRefused."""
    merged = heapq.merge(
        *(manifest.claims() for manifest in manifests), key=lambda claim: (claim.head.key, claim.created_at)
    )
    for key, claims in groupby(merged, key=lambda claim: claim.head.key):
        yield key, list(claims)


def audit_claims(manifests: Sequence[ManifestFile]) -> Iterator[AuditClaim]:
    """What all manifests say of audits, in the order of the documents' ids, for each the earliest claim first."""
    yield from heapq.merge(
        *(manifest.audit_claims() for manifest in manifests),
        key=lambda claim: (claim.audit.document_id, claim.created_at),
    )


def missing_links(manifests: Iterable[ManifestFile]) -> Iterator[tuple[ManifestFile, ManifestFile]]:
    """Neighbours in time of which the later does not name the earlier as its previous: one between them is not given,
    or was replaced."""
    for earlier, later in pairwise(sorted(manifests, key=lambda each: each.created_at)):
        if later.previous != earlier.sha256:
            yield earlier, later


def _lines(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Each line and whether it is the last. Raises: ManifestRefused."""
    before: bytes | None = None
    rest = b""
    offset = 0
    while block := _block(path, offset):
        offset += len(block)
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if len(line) >= LINE_BYTES_MAX:
                raise ManifestRefused(path, "a line is longer than any of a manifest")
            if before is not None:
                yield before, False
            before = line + b"\n"
        if len(rest) >= LINE_BYTES_MAX:
            raise ManifestRefused(path, "a line is longer than any of a manifest")
    if rest:
        raise ManifestRefused(path, "a line is cut off")
    if before is not None:
        yield before, True


def _block(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(BLOCK_BYTES)
    except OSError as error:
        raise ManifestRefused(path, f"it cannot be read: {error.strerror}") from error


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        line = json.loads(data)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        raise ManifestRefused(path, "a line is no JSON object")
    return line


def _head_of(path: Path, line: dict[str, Any]) -> PublishedHead:
    try:
        return PublishedHead(
            key=UUID(line["document"]),
            epoch=int(line["epoch"]),
            seq=int(line["seq"]),
            hash=bytes.fromhex(line["hash"]),
            at_microseconds=int(line["at_microseconds"]),
            is_deleted=bool(line.get("deleted", False)),
        )
    except (KeyError, TypeError, ValueError):
        raise ManifestRefused(path, "a line does not say what a document's line says") from None


def _audit_of(path: Path, line: dict[str, Any]) -> PublishedAudit:
    try:
        return PublishedAudit(
            document_id=int(line["id"]),
            key=UUID(line["audit"]),
            n=int(line["n"]),
            hash=bytes.fromhex(line["hash"]),
            at_microseconds=int(line["at_microseconds"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ManifestRefused(path, "a line does not say what an audit's line says") from None
