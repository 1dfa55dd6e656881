"""Signed notes and checkpoints in C2SP's form: what is signed comes back, and nothing that was touched does."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import signing
from eventstore.domain import note
from eventstore.domain.note import BadNote, Checkpoint, PublicKey, Signature
from eventstore.signing import KeyFault, SealKey, ed25519_verifies

KEY = SealKey("runwire.example", bytes(range(32)))
OTHER = SealKey("runwire.example", bytes(range(1, 33)))
CHECKPOINT = Checkpoint("runwire.example/log", 7, bytes(range(32)))
TEXT = "runwire.example/log\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
NOTE = note.compose(TEXT, [KEY.sign(TEXT)])
LINES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1)


def opened(signed: str, *keys: SealKey) -> list[PublicKey]:
    return note.open_note(signed, [key.public for key in keys or (KEY,)], ed25519_verifies)[1]


def test_a_checkpoint_is_three_lines_and_its_note_a_blank_one_and_a_signature() -> None:
    assert CHECKPOINT.text() == TEXT
    text, blank, line, end = NOTE.rpartition("\n\n")[0] + "\n", "", NOTE.split("\n")[4], NOTE.split("\n")[5]
    assert (text, blank, end) == (TEXT, NOTE.split("\n")[3], "")
    mark, name, encoded = line.split(" ")
    assert (mark, name) == ("—", "runwire.example")
    raw = base64.b64decode(encoded)
    assert (raw[:4], len(raw)) == (KEY.public.tag, 68)
    assert ed25519_verifies(KEY.public.key, raw[4:], TEXT.encode())
    assert note.parse_checkpoint(note.open_note(NOTE, [KEY.public], ed25519_verifies)[0]) == CHECKPOINT


def test_a_public_keys_line_is_its_name_its_tag_and_its_bytes() -> None:
    line = KEY.public.encode()
    name, tag, raw = line.split("+", 2)
    assert (name, tag, base64.b64decode(raw)) == (KEY.public.name, KEY.public.tag.hex(), b"\x01" + KEY.public.key)
    assert note.decode_key(f" {line}\n") == KEY.public
    for wrong in (
        "",
        name,
        f"{name}+{tag}",
        f"{name}+00000000+{raw}",
        f"other+{tag}+{raw}",
        f"{line}=",
        f"{line[:-4]}",
    ):
        with pytest.raises(ValueError, match="key"):
            note.decode_key(wrong)
    with pytest.raises(ValueError, match="blanks"):
        PublicKey("a name", bytes(32))


@given(LINES, st.integers(0, 10**18), st.binary(min_size=32, max_size=32), st.lists(LINES, max_size=3))
def test_any_checkpoint_comes_back_from_its_note(origin: str, size: int, root: bytes, more: list[str]) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(more))
    signed = note.compose(checkpoint.text(), [KEY.sign(checkpoint.text())])
    assert signing.open_checkpoint(signed, [KEY.public]) == checkpoint


@given(st.integers(0, len(NOTE) - 1), st.characters(blacklist_categories=["Cs"]))
def test_one_letter_changed_anywhere_spoils_the_note(place: int, letter: str) -> None:
    changed = NOTE[:place] + letter + NOTE[place + 1 :]
    if changed != NOTE:
        with pytest.raises(BadNote):
            opened(changed)


def test_several_keys_sign_one_text_and_each_is_found_by_who_knows_it() -> None:
    both = note.compose(TEXT, [KEY.sign(TEXT), OTHER.sign(TEXT)])
    assert opened(both, KEY, OTHER) == [KEY.public, OTHER.public]
    assert opened(both, OTHER) == [OTHER.public]
    assert opened(note.compose(TEXT, [KEY.sign(TEXT)] * 2)) == [KEY.public]
    with pytest.raises(BadNote, match="none of the keys"):
        opened(NOTE, OTHER)


def test_a_line_of_a_stranger_is_passed_over_and_a_false_line_of_ours_is_not() -> None:
    stranger = Signature("cosigner.example", b"abcd", b"whatever kind of signature that is")
    assert opened(note.compose(TEXT, [stranger, KEY.sign(TEXT)])) == [KEY.public]
    false = Signature(KEY.public.name, KEY.public.tag, bytes(64))
    with pytest.raises(BadNote, match="does not verify"):
        opened(note.compose(TEXT, [OTHER.sign(TEXT), false]), KEY, OTHER)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        TEXT,
        TEXT + "\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("—", "-"),
        NOTE.replace("— ", "—"),
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("\n", "\r\n"),
        NOTE + "— runwire.example\n",
        NOTE + "— runwire.example AAAA\n",
        NOTE + "— run+wire AAAAAAAA\n",
        NOTE + "\x00",
        TEXT + "\n" + NOTE.rpartition("\n\n")[2] * 101,
        "x" * 70_000 + NOTE,
    ],
)
def test_what_is_no_note_is_none(wrong: str) -> None:
    with pytest.raises(BadNote):
        opened(wrong)


@pytest.mark.parametrize("size", ["", "-1", "+1", "01", " 1", "1 ", "1.0", "١", "9" * 20])
def test_a_size_is_a_plain_number(size: str) -> None:
    with pytest.raises(BadNote):
        note.parse_checkpoint(TEXT.replace("\n7\n", f"\n{size}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "origin\n7\n",
        "origin\n7\nAAEC\n",
        TEXT[:-1],
        TEXT + "\n",
        TEXT.replace("Hh8=", "Hh9="),  # the same bytes, spelled otherwise
        TEXT.replace("Hh8=", "Hh8"),
    ],
)
def test_a_text_that_is_no_checkpoint_is_none(text: str) -> None:
    with pytest.raises(BadNote):
        note.parse_checkpoint(text)


@pytest.mark.parametrize("text", ["no end", "tab\t\n", "bell\x07\n", "half \ud800\n"])
def test_a_text_that_cannot_be_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="note"):
        note.compose(text, [])


def test_the_key_is_made_once_for_its_owner_only_and_rotated(tmp_path: Path) -> None:
    file = tmp_path / "seal" / "key"
    ring = signing.ensure_key(file, "runwire.example")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert signing.ensure_key(file, "another").public == ring.public == signing.load(file).public
    assert signing.read_public(tmp_path / "seal" / "key.pub") == list(ring.public)
    new = signing.rotate(file)
    rotated = signing.load(file)
    assert [key.public for key in rotated.signing] == [new, *ring.public]
    assert rotated.public == (*ring.public, new)
    assert len(opened(rotated.sign(CHECKPOINT), *rotated.signing)) == 2
    assert [key.public for key in signing.retire(file, ring).signing] == [new, *ring.public]  # not what was used
    assert [key.public for key in signing.retire(file, rotated).signing] == [new]
    assert signing.load(file).public == rotated.public
    assert not [each for each in file.parent.iterdir() if each.name not in {"key", "key.pub"}]


def test_a_key_that_others_can_read_or_that_is_none_is_refused_without_a_word_of_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    signing.ensure_key(file, "runwire.example")
    file.chmod(0o640)
    with pytest.raises(KeyFault, match="read by others"):
        signing.load(file)
    file.chmod(0o600)
    held = file.read_text()
    for content in ("", "[]", "{}", "[{}]", held.replace('"ed25519": "', '"ed25519": "zz'), "x"):
        file.write_text(content)
        with pytest.raises(KeyFault) as caught:
            signing.load(file)
        assert "zz" not in str(caught.value)
    file.write_text(held)
    (tmp_path / "key.pub").write_text(KEY.public.encode() + "\n")
    with pytest.raises(KeyFault, match="belong together"):
        signing.load(file)
    with pytest.raises(KeyFault):
        signing.load(tmp_path / "none")
