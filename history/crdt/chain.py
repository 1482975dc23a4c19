"""The hash chain of a log: each row's hash covers the one before, so that no row can be altered, dropped or moved.

Decided once; `VERSION` is the first byte hashed. The author enters only through the session's commitment, so a person
can be pseudonymised (drop salt and user) and the chain still holds; an erased payload keeps its digest."""

import hashlib
import struct

VERSION = b"\x01"
GENESIS = b""
"""The hash of an empty log."""

ENTRY_VERSION = b"\x81"
"""The first byte hashed of an entry of the audit: another one, so that no row of the log passes for one."""

_ROW = struct.Struct(">16sqhq")
"""document key, seq, kind, microseconds since 1970."""


def commitment(*, salt: bytes, user: str, via: int, ip: str) -> bytes:
    """What the chain knows of a session: sha256(salt ‖ user ‖ via ‖ ip), each with its length. 32 bytes."""
    digest = hashlib.sha256(VERSION)
    for part in (salt, user.encode(), str(via).encode(), ip.encode()):
        digest.update(struct.pack(">I", len(part)))
        digest.update(part)
    return digest.digest()


def row_hash(
    previous: bytes,
    *,
    document_key: bytes,
    seq: int,
    kind: int,
    at_microseconds: int,
    session_commitment: bytes,
    payload: bytes,
) -> bytes:
    """The hash of one row, 32 bytes. `previous` is the one before it, or GENESIS; `document_key` has 16 bytes."""
    return hashlib.sha256(
        VERSION
        + previous
        + _ROW.pack(document_key, seq, kind, at_microseconds)
        + session_commitment
        + hashlib.sha256(payload).digest()
    ).digest()


def entry_hash(
    previous: bytes,
    *,
    document_key: bytes,
    n: int,
    action: int,
    at_microseconds: int,
    actor_commitment: bytes,
    detail_sha256: bytes,
) -> bytes:
    """The hash of one entry of a document's audit, 32 bytes; the n-th, from 1. `previous` is the one before it, or
    GENESIS. The detail enters as its digest, so that it can be erased and the chain still holds."""
    return hashlib.sha256(
        ENTRY_VERSION
        + previous
        + _ROW.pack(document_key, n, action, at_microseconds)
        + actor_commitment
        + detail_sha256
    ).digest()
