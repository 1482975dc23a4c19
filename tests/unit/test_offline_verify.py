"""The script's own Ed25519 says what the library says."""

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from history.proof.offline_verify import ORDER, ed25519_holds


def _signed(seed: int) -> tuple[bytes, bytes, bytes]:
    """Public key, signature, message."""
    rng = random.Random(seed)
    key = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
    message = rng.randbytes(rng.randrange(100))
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), key.sign(message), message


@pytest.mark.parametrize("seed", range(5))
def test_what_was_signed_holds_and_nothing_else_does(seed: int) -> None:
    key, signature, message = _signed(seed)
    assert ed25519_holds(key, signature, message)
    assert not ed25519_holds(key, signature, message + b"!")
    assert not ed25519_holds(_signed(seed + 100)[0], signature, message)
    rng = random.Random(seed)
    for _ in range(8):
        place, bit = rng.randrange(64), 1 << rng.randrange(8)
        assert not ed25519_holds(key, _flipped(signature, place, bit), message)
        assert not ed25519_holds(_flipped(key, place % 32, bit), signature, message)


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def test_the_vectors_of_rfc_8032_hold() -> None:
    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )
    assert ed25519_holds(key, signature, b"")
    assert not ed25519_holds(key, signature, b"\x72")


def test_a_signature_has_one_form() -> None:
    """S + L would verify where only the equation is looked at (RFC 8032, 5.1.7)."""
    key, signature, message = _signed(1)
    twin = int.from_bytes(signature[32:], "little") + ORDER
    assert not ed25519_holds(key, signature[:32] + twin.to_bytes(32, "little"), message)
    assert not ed25519_holds(key, signature[:63], message)
    assert not ed25519_holds(key[:31], signature, message)
