"""The sealer's Ed25519 keys: a private one in a file outside the database, and the public ones that verifiers pin.

The file holds the key that signs and, after a rotation, the one before it, until that one has cosigned a last
checkpoint. The public keys stand beside it, one per line, oldest first; hand that file to whoever verifies.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from eventstore.domain import note
from eventstore.domain.note import Checkpoint, PublicKey, Signature

PUBLIC_SUFFIX: Final = ".pub"


class KeyFault(Exception):
    """The sealing key cannot be used; the message says why and never what is in the file."""


def ed25519_verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this is the key's signature of the message."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class SealKey:
    """A private key and the name that it signs under."""

    def __init__(self, name: str, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = PublicKey(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def new(cls, name: str) -> "SealKey":
        """A key that nobody has seen before."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    def sign(self, text: str) -> Signature:
        """This key's line under the text."""
        return Signature(self.public.name, self.public.tag, self._key.sign(text.encode()))

    def secret(self) -> dict[str, str]:
        """What the key's file holds."""
        return {"name": self.public.name, "ed25519": self._key.private_bytes_raw().hex()}


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys that sign now, the current one first, and all public keys that have ever signed."""

    signing: tuple[SealKey, ...]
    public: tuple[PublicKey, ...]

    def sign(self, checkpoint: Checkpoint) -> str:
        """The checkpoint as a note."""
        text = checkpoint.text()
        return note.compose(text, [key.sign(text) for key in self.signing])

    def open(self, text: str) -> Checkpoint:
        """The checkpoint in a note that one of our keys has signed, or BadNote."""
        return open_checkpoint(text, self.public)


def open_checkpoint(signed: str, keys: Sequence[PublicKey]) -> Checkpoint:
    """The checkpoint in a note that one of these keys has signed, or BadNote."""
    text, _ = note.open_note(signed, keys, ed25519_verifies)
    return note.parse_checkpoint(text)


def ensure_key(file: Path, name: str) -> KeyRing:
    """The keys in this file; made with a first key when there is none."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = SealKey.new(name)
        # The public key is there first: a signature is never without the key that checks it.
        _append_public(file, key.public)
        _write_private(file, [key], new=True)
    return load(file)


def load(file: Path) -> KeyRing:
    """The keys in this file, or KeyFault. A file that others may read is refused, not repaired: it may be known."""
    try:
        if file.stat().st_mode & 0o077:
            raise KeyFault(f"{file} can be read by others; keep it with mode 0600")
        held = [SealKey(entry["name"], bytes.fromhex(entry["ed25519"])) for entry in json.loads(file.read_text())]
        public = read_public(Path(f"{file}{PUBLIC_SUFFIX}"))
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise KeyFault(f"{file} holds no sealing key that can be read ({type(fault).__name__})") from fault
    if not held or not {key.public for key in held} <= set(public):
        raise KeyFault(f"{file} and {file}{PUBLIC_SUFFIX} do not belong together")
    return KeyRing(tuple(held), tuple(public))


def read_public(file: Path) -> list[PublicKey]:
    """The public keys in a file, one per line."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [note.decode_key(line) for line in lines if line and not line.startswith("#")]


def rotate(file: Path) -> PublicKey:
    """A new key signs from the next checkpoint on, which the one before it cosigns. The running sealer takes the new
    key up by itself."""
    ring = load(file)
    if len(ring.signing) > 1:
        raise KeyFault("the key before this one has not cosigned its last checkpoint yet")
    key = SealKey.new(ring.signing[0].public.name)
    _append_public(file, key.public)
    _write_private(file, [key, ring.signing[0]])
    return key.public


def retire(file: Path, used: KeyRing) -> KeyRing:
    """Forget the key that has cosigned its last checkpoint, unless the file has changed since."""
    now = load(file)
    if [key.public for key in now.signing] == [key.public for key in used.signing] and len(now.signing) > 1:
        _write_private(file, now.signing[:1])
    return load(file)


def _append_public(file: Path, key: PublicKey) -> None:
    with Path(f"{file}{PUBLIC_SUFFIX}").open("a", encoding="utf-8") as out:
        out.write(key.encode() + "\n")
        out.flush()
        os.fsync(out.fileno())


def _write_private(file: Path, keys: Sequence[SealKey], *, new: bool = False) -> None:
    half = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump([key.secret() for key in keys], out)
            out.flush()
            os.fsync(out.fileno())
        if new:
            os.link(half, file)  # never over a key that another start has made meanwhile
        else:
            half.replace(file)
    finally:
        with suppress(FileNotFoundError):
            half.unlink()
