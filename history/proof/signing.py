"""Ed25519 keys (RFC 8032) as PEM files, by `cryptography`: who signs the manifests, and who is believed to.

The private key is a file that only its owner may read; it is never in the database, a log or an error."""

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from history.errors import HistoryError

KEY_FILE_BYTES_MAX = 4096


class KeyRefused(HistoryError):
    """A file is not the key it should be; the message names the file and nothing of what it holds."""


def make_key(path: Path) -> Ed25519PrivateKey:
    """Write a new private key for its owner's eyes (0600). Raises: FileExistsError, OSError."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Raises: KeyRefused, also where the file cannot be read."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError):
        raise KeyRefused(f"{path} is not a private key without a password, in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRefused(f"{path} is not an Ed25519 key")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Raises: KeyRefused, also where the file cannot be read."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError:
        raise KeyRefused(f"{path} is not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyRefused(f"{path} is not an Ed25519 key")
    return key


def public_pem(key: Ed25519PublicKey) -> str:
    pem: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the sha256 of the key's 32 bytes: which key to take, not proof of anything."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def signature(key: Ed25519PrivateKey, message: bytes) -> str:
    return base64.b64encode(key.sign(message)).decode()


def holds(key: Ed25519PublicKey, signature: str, message: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise KeyRefused(f"{path} cannot be read: {error.strerror}") from None
