"""The Merkle tree of RFC 6962 and RFC 9162: roots, growth leaf by leaf, proofs, and what checks them.

A tree of n leaves is a row of perfect subtrees, largest first: one per bit of n. A node is named (level, index) and
covers the leaves from index * 2^level on, 2^level of them; once complete it never changes. So a tree grows by keeping
the row (`Peaks`), and any root or proof is a few perfect nodes joined: whoever holds those nodes need not hold leaves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

EMPTY: Final = sha256(b"").digest()

Node = tuple[int, int]  # level, index
Nodes = Callable[[Node], bytes]
Span = tuple[int, int]  # first leaf, and the one after the last


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf; its first byte keeps it apart from that of a node."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its two subtrees."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Peaks:
    """A tree that grows: its size and its perfect subtrees, largest first. Memory is one hash per bit of the size."""

    size: int = 0
    hashes: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> list[bytes]:
        """Add a leaf's hash. Answers the perfect subtrees that it completes, the leaf itself first."""
        completed, size = [leaf], self.size
        while size & 1:
            leaf = node_hash(self.hashes.pop(), leaf)
            completed.append(leaf)
            size >>= 1
        self.hashes.append(leaf)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The root at this size."""
        return _join(self.hashes) if self.hashes else EMPTY

    def copy(self) -> "Peaks":
        """The same tree, to grow on its own."""
        return Peaks(self.size, list(self.hashes))


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes."""
    peaks = Peaks()
    for leaf in leaves:
        peaks.append(leaf)
    return peaks.root()


def perfect_nodes(span: Span) -> list[Node]:
    """The perfect subtrees that make up an aligned span of leaves, from the left. Of (0, n): the peaks of n leaves."""
    first, end = span
    found = []
    while first < end:
        level = (end - first).bit_length() - 1
        found.append((level, first >> level))
        first += 1 << level
    return found


def span_hash(span: Span, nodes: Nodes) -> bytes:
    """The hash over an aligned span."""
    return _join([nodes(node) for node in perfect_nodes(span)])


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The subtrees whose hashes prove that leaf `index` is in the tree of `size`, nearest first."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    first, end, path = 0, size, list[Span]()
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((first, middle))
            first = middle
    return path[::-1]


def consistency_spans(old: int, new: int) -> list[Span]:
    """The subtrees whose hashes prove that the tree of `new` leaves begins with that of `old`."""
    if not 0 < old <= new:
        raise ValueError(f"a tree of {new} cannot be shown to begin with one of {old}")
    first, end, path, whole = 0, new, list[Span](), True
    while old < end:
        middle = first + _split(end - first)
        if old <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((first, middle))
            first, whole = middle, False
    if not whole:
        path.append((first, end))
    return path[::-1]


def proof(spans: Sequence[Span], nodes: Nodes) -> list[bytes]:
    """The hashes of these spans."""
    return [span_hash(span, nodes) for span in spans]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the path leads from this leaf at this place to the root, using every hash of it and no further one."""
    if not 0 <= index < size or not _are_hashes([leaf, root, *path]):
        return False
    place, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether the path shows that the newer tree begins with the older one."""
    if not 0 <= old <= new or not _are_hashes([old_root, new_root, *path]):
        return False
    if old in {0, new}:  # nothing to show; the RFC leaves 0 out, a tree without leaves begins every tree
        return not path and (old_root == new_root if old == new else old_root == EMPTY)
    steps = list(path) if old & (old - 1) else [old_root, *path]
    if not path:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    older = newer = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            older, newer = node_hash(sibling, older), node_hash(sibling, newer)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            newer = node_hash(newer, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and older == old_root and newer == new_root


def _split(size: int) -> int:
    """The largest power of two below the size: how many leaves go left."""
    return 1 << (size - 1).bit_length() - 1


def _join(hashes: Sequence[bytes]) -> bytes:
    found = hashes[-1]
    for left in reversed(hashes[:-1]):
        found = node_hash(left, found)
    return found


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == len(EMPTY) for value in values)
