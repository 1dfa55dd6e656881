"""The tree is the one of RFC 6962, and its proofs are taken when they are right and at no other time."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.domain import merkle
from eventstore.domain.merkle import Node, Peaks, verify_consistency, verify_inclusion

# The leaves and roots that certificate logs test with: the root over the first 0, 1, 2 … of these leaves.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
HASHES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
MANY = [merkle.leaf_hash(bytes([n])) for n in range(130)]
OTHER = bytes(32)
SIZES = st.integers(1, len(MANY))


def by_definition(leaves: list[bytes]) -> bytes:
    """The RFC's own words: nothing, one, or two trees split at the largest power of two below the size."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


def node(place: Node) -> bytes:
    level, index = place
    return by_definition(MANY[index << level : (index + 1) << level])


def inclusion(index: int, size: int) -> list[bytes]:
    return merkle.proof(merkle.inclusion_spans(index, size), node)


def consistency(old: int, new: int) -> list[bytes]:
    return merkle.proof(merkle.consistency_spans(old, new), node)


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_the_published_ones(size: int) -> None:
    assert merkle.tree_root(HASHES[:size]).hex() == ROOTS[size]


def test_the_tree_without_leaves_has_the_hash_of_nothing() -> None:
    assert merkle.EMPTY == Peaks().root() == sha256(b"").digest()


@given(SIZES)
def test_a_tree_that_grows_is_the_tree_by_definition_and_completes_each_perfect_subtree_once(size: int) -> None:
    peaks, completed = Peaks(), dict[Node, bytes]()
    for index, leaf in enumerate(MANY[:size]):
        for level, found in enumerate(peaks.append(leaf)):
            assert (level, index >> level) not in completed
            completed[level, index >> level] = found
        assert peaks.root() == by_definition(MANY[: index + 1])
    assert all(found == node(place) for place, found in completed.items())
    assert set(completed) == {(level, n) for level in range(9) for n in range(size >> level)}
    assert [completed[place] for place in merkle.perfect_nodes((0, size))] == peaks.hashes


def test_a_copy_grows_on_its_own() -> None:
    peaks = Peaks()
    peaks.append(MANY[0])
    peaks.copy().append(MANY[1])
    assert (peaks.size, peaks.root()) == (1, MANY[0])


@pytest.mark.parametrize(
    ("index", "size", "leaves"), [(0, 7, ["1", "23", "456"]), (3, 7, ["2", "01", "456"]), (6, 7, ["45", "0123"])]
)
def test_paths_are_those_of_the_rfcs_example(index: int, size: int, leaves: list[str]) -> None:
    spans = [(int(each[0]), int(each[-1]) + 1) for each in leaves]
    assert merkle.inclusion_spans(index, size) == spans


@pytest.mark.parametrize(
    ("old", "new", "leaves"),
    [(3, 7, ["2", "3", "01", "456"]), (4, 7, ["456"]), (6, 7, ["45", "6", "0123"]), (7, 7, [])],
)
def test_consistency_paths_are_those_of_the_rfcs_example(old: int, new: int, leaves: list[str]) -> None:
    spans = [(int(each[0]), int(each[-1]) + 1) for each in leaves]
    assert merkle.consistency_spans(old, new) == spans


@given(st.data(), SIZES)
def test_an_inclusion_proof_holds_and_no_change_of_it_does(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaf, path, root = MANY[index], inclusion(index, size), by_definition(MANY[:size])
    assert verify_inclusion(leaf, index, size, path, root)
    assert not verify_inclusion(OTHER, index, size, path, root)
    assert not verify_inclusion(leaf, index, size, path, OTHER)
    assert not verify_inclusion(leaf, index, size, [*path, OTHER], root)
    assert not verify_inclusion(leaf, index, size, [OTHER, *path], root)
    for place in range(len(path)):
        assert not verify_inclusion(leaf, index, size, path[:place] + path[place + 1 :], root)
        assert not verify_inclusion(leaf, index, size, [*path[:place], OTHER, *path[place + 1 :]], root)
        assert not verify_inclusion(leaf, index, size, [*path[:place], path[place][:31], *path[place + 1 :]], root)
    for wrong in range(size):
        assert verify_inclusion(leaf, wrong, size, path, root) == (wrong == index)


@given(st.data(), SIZES)
def test_a_consistency_proof_holds_and_no_change_of_it_does(data: st.DataObject, new: int) -> None:
    old = data.draw(st.integers(1, new))
    path, older, newer = consistency(old, new), by_definition(MANY[:old]), by_definition(MANY[:new])
    assert verify_consistency(old, new, path, older, newer)
    assert not verify_consistency(old, new, path, OTHER, newer)
    assert not verify_consistency(old, new, path, older, OTHER)
    assert not verify_consistency(old, new, [*path, OTHER], older, newer)
    assert not verify_consistency(old, new, [OTHER, *path], older, newer)
    for place in range(len(path)):
        assert not verify_consistency(old, new, path[:place] + path[place + 1 :], older, newer)
        assert not verify_consistency(old, new, [*path[:place], OTHER, *path[place + 1 :]], older, newer)
    for place in range(len(path)):  # a proof that stops half-way, with the root that it comes to
        assert not verify_consistency(old, new, path[:place], older, _root_reached(old, new, path[:place], older))
    if old < new:
        assert not verify_consistency(new, old, path, newer, older)
        assert not verify_consistency(old, old, path, older, older)


def _root_reached(old: int, new: int, path: list[bytes], older: bytes) -> bytes:
    """What a verifier that does not ask whether the proof is at its end would compare the newer root with."""
    steps = list(path) if old & (old - 1) else [older, *path]
    place, last, newer = old - 1, new - 1, steps[0] if steps else older
    while place & 1:
        place, last = place >> 1, last >> 1
    for sibling in steps[1:]:
        if place & 1 or place == last:
            newer = merkle.node_hash(sibling, newer)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            newer = merkle.node_hash(newer, sibling)
        place, last = place >> 1, last >> 1
    return newer


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (4, 3)])
def test_a_leaf_outside_the_tree_is_never_included(index: int, size: int) -> None:
    assert not verify_inclusion(MANY[0], index, size, [], MANY[0])
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_spans(index, size)


def test_the_one_leaf_of_a_tree_is_its_root() -> None:
    assert verify_inclusion(MANY[0], 0, 1, [], MANY[0])
    assert not verify_inclusion(MANY[0], 0, 1, [MANY[0]], MANY[0])
    assert not verify_inclusion(MANY[0], 0, 2, [], MANY[0])


@pytest.mark.parametrize(
    ("old", "new", "path", "older", "newer", "holds"),
    [
        (0, 0, [], merkle.EMPTY, merkle.EMPTY, True),
        (0, 5, [], merkle.EMPTY, OTHER, True),  # what is empty begins everything
        (0, 5, [], OTHER, OTHER, False),
        (0, 5, [OTHER], merkle.EMPTY, OTHER, False),
        (3, 3, [], OTHER, OTHER, True),
        (3, 3, [], OTHER, MANY[0], False),
        (3, 3, [OTHER], OTHER, OTHER, False),
        (1, 2, [], MANY[0], MANY[0], False),
        (4, 8, [], OTHER, OTHER, False),
        (3, 7, [], OTHER, OTHER, False),
        (-1, 2, [], OTHER, OTHER, False),
        (2, 1, [], OTHER, OTHER, False),
    ],
)
def test_the_ends_of_a_consistency_proof_are_checked(
    old: int, new: int, path: list[bytes], older: bytes, newer: bytes, holds: bool
) -> None:
    assert verify_consistency(old, new, path, older, newer) == holds
    if not 0 < old <= new:
        with pytest.raises(ValueError, match="cannot be shown"):
            merkle.consistency_spans(old, new)


def test_a_node_cannot_pass_for_a_leaf() -> None:
    left, right = MANY[0], MANY[1]
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)
    assert not verify_inclusion(
        merkle.node_hash(*MANY[:2]), 0, 2, [merkle.node_hash(*MANY[2:4])], by_definition(MANY[:2])
    )
