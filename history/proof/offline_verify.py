"""Proves an export of a document's history against published manifests: `python offline_verify.py --help`.

One file for one's own machine: Python 3.9 and its standard library, no Django, no database, nothing of this project.
It is a second reading of docs/adr/0002-the-hash-chain.md on purpose: nothing of what it checks is taken on trust."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import struct
import sys
import uuid
from collections.abc import Iterator  # Python 3.8 reads it too
from datetime import datetime, timezone
from typing import Any, BinaryIO, NamedTuple

EXPORT_FORMATS = ("palimpsest-document-1", "palimpsest-document-2")
MANIFEST_FORMAT = "palimpsest-manifest-1"
VERSION = b"\x01"
ED25519_PEM_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of an Ed25519 public key in PEM (RFC 8410)."""

CLOCKS_APART_MICROSECONDS_MAX = 15 * 60 * 1_000_000
"""How long before a manifest was made a row that it does not have may say that it was written: clocks differ."""

UNPROVEN = ("client", "request", "member")
"""Lines that a document needs to go on elsewhere, and of which nothing can be proven but that they are all there."""

STAGES = ("session", "row", "version", *UNPROVEN, "end")
"""The lines behind the first, in this order."""

Line = dict[str, Any]


class Differs(Exception):
    """The export, or a manifest against it, is not what was appended or published."""


class Unusable(Exception):
    """A file cannot be read as what it should be; nothing is said of the history."""


def main(arguments: list[str]) -> int:
    """The exit code: 0 all of it holds, 1 something differs, 2 it cannot be told."""
    parser = argparse.ArgumentParser(
        description="Prove an export of a document's history. Exit code 0: it holds, 1: it differs, 2: no telling."
    )
    parser.add_argument("export", help="what `manage.py export_document` wrote; - is standard input")
    parser.add_argument("--manifest", nargs="+", action="append", default=[], metavar="FILE")
    parser.add_argument("--public-key", action="append", default=[], metavar="FILE", help="whose manifests to believe")
    given = parser.parse_args(arguments)
    try:
        keys = [read_public_key(path) for path in given.public_key]
        manifests = [path for paths in given.manifest for path in paths]
        if manifests and not keys:
            raise Unusable("--manifest needs --public-key: who signed them?")
        if given.export == "-":
            return verify(sys.stdin.buffer, manifests, keys)
        with open(given.export, "rb") as export:
            return verify(export, manifests, keys)
    except Differs as differs:
        say(f"DIFFERS: {differs}")
        return 1
    except (Unusable, OSError) as error:
        say(f"cannot be told: {error}")
        return 2


def say(what: str) -> None:
    sys.stdout.write(what + "\n")


def verify(export: BinaryIO, manifests: list[str], keys: list[bytes]) -> int:
    """Prove the export line by line. Raises: Differs, Unusable."""
    lines = read_lines(export)
    document = next(lines, {})
    if document.get("line") != "document" or document.get("format") not in EXPORT_FORMATS:
        raise Unusable(f"it is no export of the format {EXPORT_FORMATS[-1]}")
    try:
        key = str(uuid.UUID(document["document"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unusable("it does not say of which document it is") from error
    claims: dict[int, list[Published]] = {}
    for path in manifests:
        published = published_in_manifest(path, keys, key)
        if published is None:
            say(f"{path} does not speak of this document")
        else:
            claims.setdefault(published.seq, []).append(published)
    is_published = bool(claims)
    chain = Chain(document, claims)
    for line in lines:
        chain.take(line)
    chain.finish()
    if manifests and not is_published:
        raise Unusable("no manifest given speaks of this document: whoever made the export may have made it all up")
    return 0


class Published(NamedTuple):
    """What a manifest says of the document, and when it was made."""

    manifest: str
    created_at_microseconds: int
    seq: int
    hash: str


class Chain:
    """Recomputes every commitment and every hash of an export, in its order."""

    def __init__(self, document: Line, claims: dict[int, list[Published]]) -> None:
        self.document = document
        self.key = uuid.UUID(document["document"])
        self.claims = claims
        self.commitments: dict[int, bytes] = {}
        self.unknown_authors = 0
        self.versions = 0
        self.unproven = dict.fromkeys(UNPROVEN, 0)
        self.seq = 0
        self.at = -(1 << 63)
        self.hash = b""
        self.last_published = 0
        self.latest: Published | None = None
        self.note_latest(claims.get(0, []))
        self.stage = "session"

    def take(self, line: Line) -> None:
        """Raises: Differs, Unusable."""
        if self.stage == "end":
            raise Differs("something follows the end of the export")
        try:
            kind = line["line"]
            # Another reader of the file must not find a second answer behind the one that was proven.
            if kind not in STAGES or STAGES.index(kind) < STAGES.index(self.stage):
                raise Differs(f"a line behind seq {self.seq} has no place there: {kind!r}")
            self.stage = kind
            if kind == "session":
                self.session(line)
            elif kind == "row":
                self.row(line)
            elif kind == "version":
                self.version(line)
            elif kind in UNPROVEN:
                self.unproven[kind] += 1
            else:
                self.end(line)
        except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
            raise Unusable(f"a line behind seq {self.seq} is not of the format: {error!r}") from error

    def session(self, line: Line) -> None:
        if line["id"] in self.commitments:
            raise Differs(f"session {line['id']} is there twice")
        stored = bytes.fromhex(line["commitment"])
        salt = bytes.fromhex(line.get("salt", ""))
        user, username = line.get("user", ""), line.get("username", "")
        if (user or username) and (not user or not salt or commitment(salt, user, line["via"], line["ip"]) != stored):
            raise Differs(f"session {line['id']} is not what its commitment says: who wrote it was altered")
        if not user and (not salt or commitment(salt, "", line["via"], line["ip"]) != stored):
            self.unknown_authors += 1  # pseudonymous, or its account was deleted
        self.commitments[line["id"]] = stored

    def row(self, line: Line) -> None:
        seq, at = line["seq"], line["at_microseconds"]
        if seq != self.seq + 1:
            raise Differs(f"seq {self.seq + 1} is missing; the next row is {seq}")
        if at < self.at:
            raise Differs(f"seq {seq}: its time is before that of the row before it")
        if line["session"] not in self.commitments:
            raise Differs(f"seq {seq}: its session {line['session']} is missing")
        payload = base64.b64decode(line["payload"], validate=True)
        row = struct.pack(">16sqhq", self.key.bytes, seq, line["kind"], at)
        whole = VERSION + self.hash + row + self.commitments[line["session"]] + hashlib.sha256(payload).digest()
        self.hash = hashlib.sha256(whole).digest()
        self.seq, self.at = seq, at
        if self.hash.hex() != line["hash"]:
            raise Differs(f"seq {seq}: the row was altered: it is not what its hash says")
        if self.latest and at < self.latest.created_at_microseconds - CLOCKS_APART_MICROSECONDS_MAX:
            raise Differs(f"seq {seq}: its time is before {self.latest.manifest} was made, which does not have it")
        here = self.claims.pop(seq, [])
        for published in here:
            manifest = published.manifest
            if published.hash != self.hash.hex():
                raise Differs(f"seq {seq}: {manifest} published another hash: the log was rewritten at or before it")
            say(f"{manifest} agrees: rows 1..{seq} are what was published")
            self.last_published = seq
        self.note_latest(here)

    def note_latest(self, claims: list[Published]) -> None:
        """What follows is no older than the last manifest that does not have it."""
        both = claims + ([self.latest] if self.latest else [])
        self.latest = max(both, key=lambda each: each.created_at_microseconds, default=None)

    def version(self, line: Line) -> None:
        """What people named is in no hash; that it is a seq of this log can be said."""
        if not 0 <= line["seq"] <= self.document["seq"]:
            raise Differs(f"a version is of seq {line['seq']}, which the log does not have")
        self.versions += 1

    def end(self, line: Line) -> None:
        said = line["sessions"], line["rows"], line["versions"]
        if said != (len(self.commitments), self.seq, self.versions):
            raise Differs("the export should have {} sessions, {} rows and {} versions".format(*said))
        for kind, count in self.unproven.items():
            if line.get(f"{kind}s", 0) != count:
                raise Differs(f"the export should have {line.get(f'{kind}s', 0)} lines of the kind {kind!r}")

    def finish(self) -> None:
        """Raises: Differs."""
        if self.stage != "end":
            raise Differs(f"the export is cut off behind seq {self.seq}")
        if (self.document["seq"], self.document["hash"]) != (self.seq, self.hash.hex()):
            raise Differs(f"the rows lead to seq {self.seq}, and not to the head {self.document['seq']} with its hash")
        for seq, claims in sorted(self.claims.items()):
            if seq > 0:
                raise Differs(
                    f"the export ends at {self.seq}, but {claims[0].manifest} published {seq}: cut off, or older"
                )
        say(
            f"{self.key}: rows 1..{self.seq} hold, of {len(self.commitments)} sessions, "
            f"{self.unknown_authors} of which have unknown authors"
        )
        if self.last_published < self.seq:
            say(f"rows {self.last_published + 1}..{self.seq} are in no manifest given: only the export itself says so")
        say(
            "in no hash: titles, versions, browsers, details, whose client ids are, requests, members, and the names "
            "of accounts, whose keys are"
        )


def commitment(salt: bytes, user: str, via: int, ip: str) -> bytes:
    """sha256(version, salt, user, via, ip), each but the version with its length before it."""
    parts = (salt, user.encode(), str(via).encode(), ip.encode())
    return hashlib.sha256(VERSION + b"".join(struct.pack(">I", len(part)) + part for part in parts)).digest()


def read_lines(file: BinaryIO) -> Iterator[Line]:
    for data in file:
        try:
            line = json.loads(data, object_pairs_hook=_said_once)
        except (ValueError, RecursionError):
            raise Differs("a line is cut off, or no JSON that says each thing once") from None
        if not isinstance(line, dict):
            raise Unusable("a line is no JSON object")
        yield line


def _said_once(pairs: list[tuple[str, Any]]) -> Line:
    """Raises: ValueError where a name comes twice: of such a line one reader takes the first and another the last."""
    line = dict(pairs)
    if len(line) < len(pairs):
        raise ValueError("a name comes twice")
    return line


def published_in_manifest(path: str, keys: list[bytes], document: str) -> Published | None:
    """What a manifest says of this document, once its signature holds. Raises: Unusable."""
    digest = hashlib.sha256()
    head: Line | None = None
    mark = json.dumps(document).encode()
    first = last = b""
    with open(path, "rb") as file:
        for data in file:
            first = first or data
            digest.update(last)
            last = data
            if mark in data:
                named = json.loads(data)
                if named.get("document") == document:  # the line of its audit names it too
                    head = named
    try:
        header, signed = json.loads(first), json.loads(last)
        signature = base64.b64decode(signed["signature"], validate=True)
        is_whole = header["format"] == MANIFEST_FORMAT and signed["sha256"] == digest.hexdigest()
    except (ValueError, KeyError, TypeError):
        is_whole, signature = False, b""
    if not is_whole:
        raise Unusable(f"{path} is no manifest of the format {MANIFEST_FORMAT}, or not all of it")
    message = MANIFEST_FORMAT.encode() + b"\n" + digest.digest()
    if not any(ed25519_holds(key, signature, message) for key in keys):
        raise Unusable(f"{path} was signed by none of the keys given")
    if head is None:
        return None
    try:
        made = datetime.fromisoformat(header["created_at"]) - datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 (3.9 has no UTC)
        microseconds = (made.days * 86_400 + made.seconds) * 1_000_000 + made.microseconds
        return Published(path, microseconds, int(head["seq"]), str(head["hash"]))
    except (KeyError, TypeError, ValueError):
        raise Unusable(f"{path} is signed, but lacks what a manifest says") from None


def read_public_key(path: str) -> bytes:
    """The 32 bytes of an Ed25519 public key in PEM. Raises: Unusable."""
    with open(path, "rb") as file:
        lines = file.read(4096).strip().splitlines()
    try:
        der = base64.b64decode(b"".join(lines[1:-1]), validate=True)
    except ValueError:
        der = b""
    if len(der) != 44 or not der.startswith(ED25519_PEM_PREFIX):
        raise Unusable(f"{path} is not an Ed25519 public key in PEM")
    return der[12:]


# Ed25519 as in RFC 8032, section 5.1: slow and not in constant time, which is nothing to who only checks signatures.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]
"""(X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z."""
BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
BASE_Y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
BASE: Point = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def ed25519_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this key has signed this message: [S]B = R + [k]A."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    a, r = _point(public_key), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    x1, y1, z1, _ = _times(s, BASE)
    x2, y2, z2, _ = _plus(r, _times(k, a))
    return (x1 * z2 - x2 * z1) % P == 0 and (y1 * z2 - y2 * z1) % P == 0


def _point(encoded: bytes) -> Point | None:
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * ROOT_OF_MINUS_1 % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def _plus(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _plus(total, point)
        point = _plus(point, point)
        scalar >>= 1
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
