"""Signed notes and checkpoints as C2SP defines them: a short text that people can read, and lines that sign it.

The text ends with a newline; a blank line follows, then one line per signature: an em dash, the key's name, and in
base64 four bytes that tell keys of one name apart, then the signature. A checkpoint is a note whose text says which
log it is of (origin), how many leaves the log has, and their root. This module knows the form; who can sign and what
checks an Ed25519 signature is told to it.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

ED25519: Final = b"\x01"
SIGNATURES_MAX: Final = 100
NOTE_BYTES_MAX: Final = 65_536
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MARK: Final = "— "

Check = Callable[[bytes, bytes, bytes], bool]  # public key, signature, message


class BadNote(ValueError):
    """This is no note, or not one that the keys we trust have signed."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key that a verifier trusts."""

    name: str
    key: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name) or len(self.key) != 32:
            raise ValueError("a key has a name without blanks and plus signs, and 32 bytes")

    @property
    def tag(self) -> bytes:
        """Four bytes that tell this key from others of its name."""
        return sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:4]

    def encode(self) -> str:
        """The key on one line, for people to hand on: name, tag and key between plus signs."""
        return f"{self.name}+{self.tag.hex()}+{_b64(ED25519 + self.key)}"


def decode_key(line: str) -> PublicKey:
    """The key on this line, or ValueError."""
    parts = line.strip().split("+", 2)
    if len(parts) != 3:
        raise ValueError("a public key has three parts between plus signs")
    raw = _from_b64(parts[2])
    if raw is None or len(raw) != 33 or raw[:1] != ED25519:
        raise ValueError("this is no Ed25519 key")
    key = PublicKey(parts[0], raw[1:])
    if key.tag.hex() != parts[1]:
        raise ValueError("the key's tag is not the one of its name and bytes")
    return key


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    tag: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log's operator signs: this log, at this size, has this root."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The note's text."""
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), _b64(self.root), *self.extensions))


def is_key_name(name: str) -> bool:
    """Whether a key may have this name."""
    return bool(name) and "+" not in name and not any(letter.isspace() for letter in name) and _is_clean(name)


def compose(text: str, signatures: Iterable[Signature]) -> str:
    """The note: text, blank line, signatures."""
    if not text.endswith("\n") or not _is_clean(text):
        raise ValueError("a note's text ends with a newline and has no other control characters")
    lines = [f"{_MARK}{each.name} {_b64(each.tag + each.signature)}\n" for each in signatures]
    return text + "\n" + "".join(lines)


def parse(note: str) -> tuple[str, list[Signature]]:
    """The text and its signatures, whoever made them."""
    if len(note) > NOTE_BYTES_MAX or not _is_clean(note):
        raise BadNote("this is no note")
    text, found, below = note.rpartition("\n\n")
    if not found or not below.endswith("\n"):
        raise BadNote("a note has a text, a blank line and signatures")
    lines = below[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise BadNote("more signatures than anybody needs")
    return text + "\n", [_parse_signature(line) for line in lines]


def open_note(note: str, keys: Sequence[PublicKey], check: Check) -> tuple[str, list[PublicKey]]:
    """The text, and those of our keys that signed it: at least one. Lines of keys that we do not know are passed over;
    a line that says it is of one of ours and does not verify spoils the note."""
    text, signatures = parse(note)
    ours = {(key.name, key.tag): key for key in keys}
    good: list[PublicKey] = []
    for line in signatures:
        key = ours.get((line.name, line.tag))
        if key is None or key in good:
            continue
        if not check(key.key, line.signature, text.encode()):
            raise BadNote(f"the signature of {key.name} does not verify")
        good.append(key)
    if not good:
        raise BadNote("none of the keys that we trust has signed this note")
    return text, good


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that this text of a note is."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise BadNote("a checkpoint has an origin, a size and a root")
    origin, size, root_text, *extensions = lines
    root = _from_b64(root_text)
    if _SIZE.fullmatch(size) is None or root is None or len(root) != 32:
        raise BadNote("a checkpoint's second line is a size and its third a root")
    return Checkpoint(origin, int(size), root, tuple(extensions))


def _parse_signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_MARK).partition(" ")
    raw = _from_b64(encoded)
    if not line.startswith(_MARK) or not is_key_name(name) or raw is None or len(raw) < 5:
        raise BadNote("a signature line has a name, a tag and a signature")
    return Signature(name, raw[:4], raw[4:])


def _is_clean(text: str) -> bool:
    return not any(letter < " " and letter != "\n" for letter in text) and not any(
        "\ud800" <= letter <= "\udfff" for letter in text
    )


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _from_b64(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if _b64(raw) == text else None  # one spelling only: no stray bits at the end
