"""Compression that a store was told to use; the store itself does not say which."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import TypeAlias

import zstandard

from history.imports.sources import ROW_BYTES_MAX

CHUNK_BYTES = 512
"""Of zstd at once, which may become 128 KiB for each four of them."""

Decompress: TypeAlias = Callable[[bytes], bytes]
"""Raises: ValueError for what is not compressed so, or becomes larger than ROW_BYTES_MAX."""


def not_compressed(data: bytes) -> bytes:
    return data


def _inflated(data: bytes, window_bits: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    inflated = inflater.decompress(data, ROW_BYTES_MAX)
    return _whole(inflated, is_whole=inflater.eof)


def _whole(data: bytes, *, is_whole: bool) -> bytes:
    if not is_whole:
        raise ValueError("it is cut off, or larger than may be read")
    return data


def _zlib(data: bytes) -> bytes:
    return _inflated(data, zlib.MAX_WBITS)


def _gzip(data: bytes) -> bytes:
    return _inflated(data, zlib.MAX_WBITS | 16)


def _bz2(data: bytes) -> bytes:
    reader = bz2.BZ2Decompressor()
    return _whole(reader.decompress(data, ROW_BYTES_MAX), is_whole=reader.eof)


def _lzma(data: bytes) -> bytes:
    reader = lzma.LZMADecompressor(memlimit=ROW_BYTES_MAX)
    return _whole(reader.decompress(data, ROW_BYTES_MAX), is_whole=reader.eof)


def _zstd(data: bytes) -> bytes:
    chunks: list[bytes] = []
    size = 0
    reader = zstandard.ZstdDecompressor().decompressobj()
    for start in range(0, len(data), CHUNK_BYTES):
        chunks.append(reader.decompress(data[start : start + CHUNK_BYTES]))
        size += len(chunks[-1])
        if size > ROW_BYTES_MAX or reader.eof:
            break
    return _whole(b"".join(chunks), is_whole=reader.eof)


_READERS: dict[str, Decompress] = {"zlib": _zlib, "gzip": _gzip, "bz2": _bz2, "lzma": _lzma, "zstd": _zstd}

COMPRESSIONS = tuple(_READERS)

_BEGINNINGS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "lzma", b"\x28\xb5\x2f\xfd": "zstd", b"\x78": "zlib"}


def decompressor(name: str | None) -> Decompress:
    """What reads this compression, one of COMPRESSIONS; None for none."""
    if name is None:
        return not_compressed
    read = _READERS[name]

    def decompress(data: bytes) -> bytes:
        try:
            return read(data)
        except (zlib.error, OSError, EOFError, lzma.LZMAError, zstandard.ZstdError, ValueError) as error:
            raise ValueError(f"this is not compressed with {name}: {error}") from error

    return decompress


def looks_compressed(data: bytes) -> str | None:
    """The compression that what is no update begins like."""
    return next((name for beginning, name in _BEGINNINGS.items() if data.startswith(beginning)), None)
