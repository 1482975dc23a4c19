"""The lib0 encoding that Yjs messages and updates are made of: variable-length integers, strings, `Any` values.

Every read is bounded by the input: a count, length or nesting that the bytes cannot hold raises `Malformed` before
anything is allocated. Source: lib0 encoding.js and decoding.js."""

import struct
from typing import TypeAlias

ANY_DEPTH_MAX = 64
"""Nesting of one `Any` value; yrs recurses and dies of a segmentation fault from about 13,400."""

SAFE_INTEGER_MAX = (1 << 53) - 1
"""The largest integer a JavaScript client can hold exactly."""

AnyValue: TypeAlias = bool | int | float | str | bytes | list["AnyValue"] | dict[str, "AnyValue"] | None


_CONSTANTS = {127: None, 126: None, 121: False, 120: True}


class Malformed(ValueError):
    """Raised when bytes are not what the protocol says: cut short, too long, unknown or not canonical."""


class Reader:
    """A cursor over immutable bytes; `position` is the next byte to be read (0-based)."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.end = len(data)

    @property
    def remaining(self) -> int:
        return self.end - self.position

    def byte(self) -> int:
        if self.position >= self.end:
            raise Malformed("the input ends in the middle of a value")
        value = self.data[self.position]
        self.position += 1
        return value

    def take(self, length: int) -> bytes:
        stop = self.position + length
        if stop > self.end:
            raise Malformed("a length reaches past the end of the input")
        chunk = self.data[self.position : stop]
        self.position = stop
        return chunk

    def var_uint(self) -> int:
        """Read an unsigned integer ≤ 2^53 - 1 in its shortest form.

        A longer form of the same number (`80 00` for 0) is refused: one value has one encoding, and an endless run
        of `ff` must not be read in quadratic time."""
        data, position, end = self.data, self.position, self.end
        if position >= end:
            raise Malformed("the input ends in the middle of an integer")
        value = data[position]
        position += 1
        if value < 0x80:
            self.position = position
            return value
        value &= 0x7F
        shift = 7
        while True:
            if position >= end:
                raise Malformed("the input ends in the middle of an integer")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 49:
                raise Malformed("an integer is longer than 53 bits")
        if byte == 0:
            raise Malformed("an integer is not in its shortest form")
        if value > SAFE_INTEGER_MAX:
            raise Malformed("an integer is longer than 53 bits")
        self.position = position
        return value

    def var_int(self) -> int:
        """Read a signed integer of at most 53 bits in its shortest form: 6 bits and a sign first, then 7 bits a byte.

        Yjs throws at a larger one, and yrs reads another number. JavaScript knows a negative zero."""
        byte = self.byte()
        negative = bool(byte & 0x40)
        value, shift = byte & 0x3F, 6
        while byte >= 0x80:
            if shift > 48:
                raise Malformed("a signed integer is longer than 53 bits")
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte == 0:
                raise Malformed("a signed integer is not in its shortest form")
        if value > SAFE_INTEGER_MAX:
            raise Malformed("a signed integer is longer than 53 bits")
        return -value if negative else value

    def var_bytes(self) -> bytes:
        return self.take(self.var_uint())

    def var_string(self) -> str:
        length = self.var_uint()
        stop = self.position + length
        if stop > self.end:
            raise Malformed("a length reaches past the end of the input")
        try:
            text = self.data[self.position : stop].decode()
        except UnicodeDecodeError:
            raise Malformed("a string is not UTF-8") from None
        self.position = stop
        return text

    def count(self, *, item_bytes_min: int = 1) -> int:
        """Read how many items follow; more than the remaining bytes could hold is refused."""
        number = self.var_uint()
        if number * item_bytes_min > self.end - self.position:
            raise Malformed("a count is larger than the input")
        return number

    def any(self) -> AnyValue:
        """Read one tagged value (lib0 `Any`); `undefined` and `null` both become None."""
        container: list[AnyValue] | dict[str, AnyValue] | None = None
        key, left = "", 0
        outer: list[tuple[list[AnyValue] | dict[str, AnyValue] | None, str, int]] = []
        while True:
            tag = self.byte()
            value: AnyValue
            if tag == 117 or tag == 118:
                value = [] if tag == 117 else {}
                if number := self.count(item_bytes_min=tag - 116):
                    outer.append((container, key, left))
                    if len(outer) > ANY_DEPTH_MAX:
                        raise Malformed(f"a value is nested deeper than {ANY_DEPTH_MAX}")
                    container, left = value, number
                    if tag == 118:
                        key = self.var_string()
                    continue
            else:
                value = self._plain(tag)
            while container is not None:
                if isinstance(container, dict):
                    container[key] = value
                else:
                    container.append(value)
                left -= 1
                if left:
                    if isinstance(container, dict):
                        key = self.var_string()
                    break
                value = container
                container, key, left = outer.pop()
            else:
                return value

    def _plain(self, tag: int) -> AnyValue:
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag == 119:
            return self.var_string()
        if tag == 125:
            return self.var_int()
        if tag == 124:
            return float(struct.unpack(">f", self.take(4))[0])
        if tag == 123:
            return float(struct.unpack(">d", self.take(8))[0])
        if tag == 122:
            return int(struct.unpack(">q", self.take(8))[0])
        if tag == 116:
            return self.var_bytes()
        raise Malformed(f"unknown tag {tag} of a value")

    def finish(self) -> None:
        """Raises: Malformed when bytes are left over."""
        if self.remaining:
            raise Malformed(f"{self.remaining} bytes after the end of the message")


def var_uint(value: int) -> bytes:
    """Encode an integer ≥ 0 in its shortest form."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def var_bytes(value: bytes) -> bytes:
    return var_uint(len(value)) + value


def var_string(value: str) -> bytes:
    return var_bytes(value.encode())
