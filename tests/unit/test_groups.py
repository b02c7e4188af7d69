"""Groups hold near-duplicates together, never cut a split, and never move what is known."""

import hypothesis.strategies as st
from hypothesis import given, settings

from stages.dataset import split_of
from stages.normalize.groups import Member, group_members
from stages.normalize.known import Known

LOOKS = 12


def split(name: str) -> str:
    return split_of(name, "salt", 0.4)


def near_of(pairs) -> dict:
    near: dict = {}
    for first, second in pairs:
        near.setdefault(first, []).append((second, 2))
        near.setdefault(second, []).append((first, 2))
    return near


def member(key: str, *looks: int, group: str = "") -> Member:
    return Member(key, f"digest-{key}", looks, group)


looks = st.integers(0, LOOKS - 1)
members = st.lists(
    st.tuples(st.sets(looks, min_size=1, max_size=2), st.sampled_from(["", "", "g1", "g2", "g3"])), max_size=16
)
pairs = st.sets(st.tuples(looks, looks).filter(lambda pair: pair[0] < pair[1]), max_size=10)


@settings(max_examples=100, deadline=None)
@given(members, pairs, st.randoms(use_true_random=False), st.integers(1, 4))
def test_batches_of_any_order_never_move_what_is_known(described, close, random, batches):
    everyone = [member(f"{n:02d}", *sorted(shown), group=group) for n, (shown, group) in enumerate(described)]
    random.shuffle(everyone)
    near = near_of(close)
    known: dict[str, str] = {}
    for batch in range(batches):
        present = everyone[: len(everyone) * (batch + 1) // batches]
        found = group_members(present, near, known, split)
        assert found == group_members(random.sample(present, len(present)), near, known, split)
        assert set(found.names) | set(found.set_aside) == {m.key for m in present}
        assert not set(found.names) & set(found.set_aside)
        for one in present:
            if one.digest in known:
                assert found.names[one.key] == known[one.digest]
        assert_no_leak(present, near, found.names)
        known |= {m.digest: found.names[m.key] for m in present if m.key in found.names}


def assert_no_leak(present, near, names):
    """Identical pictures are on one side; near ones too, unless the source gives one of them a group."""
    of_look: dict = {}
    for one in present:
        for look in one.looks:
            if one.key in names:
                of_look.setdefault(look, []).append(one)
    for look, holders in of_look.items():
        assert len({split(names[one.key]) for one in holders}) == 1
        for other, _ in near.get(look, []):
            for one in holders:
                for neighbour in of_look.get(other, []):
                    if not (one.source_group or neighbour.source_group):
                        assert split(names[one.key]) == split(names[neighbour.key])


def names_by_split() -> tuple[str, str]:
    names = [f"n{number}" for number in range(50)]
    return next(n for n in names if split(n) == "train"), next(n for n in names if split(n) == "holdout")


def test_a_newcomer_between_both_splits_is_set_aside_with_its_reason():
    train, holdout = names_by_split()
    known = {"digest-a": train, "digest-b": holdout}
    everyone = [member("a", 0), member("b", 1), member("new", 2), member("other", 3)]
    found = group_members(everyone, near_of([(0, 2), (1, 2)]), known, split)
    assert found.set_aside == {"new": "resembles pictures of both splits: a (train) and b (holdout)"}
    assert found.names == {"a": train, "b": holdout, "other": "digest-other"}


def test_newcomers_that_chain_both_splits_are_set_aside():
    train, holdout = names_by_split()
    known = {"digest-a": train, "digest-b": holdout}
    everyone = [member("a", 0), member("b", 1), member("c", 2), member("d", 3)]
    found = group_members(everyone, near_of([(0, 2), (2, 3), (1, 3)]), known, split)
    assert set(found.set_aside) == {"c", "d"}


def test_a_newcomer_joins_the_nearest_and_fresh_clusters_their_smallest_digest():
    near = near_of([(1, 2)]) | {5: [(6, 4), (7, 1)], 6: [(5, 4)], 7: [(5, 1)]}
    known = {"digest-x": "first", "digest-y": "second"}
    everyone = [member("b", 1), member("a", 2), member("x", 6), member("y", 7), member("z", 5)]
    found = group_members(everyone, near, known, lambda name: "train")
    assert found.names == {"a": "digest-a", "b": "digest-a", "x": "first", "y": "second", "z": "second"}


def test_groups_of_the_source_are_kept_and_merge_by_identical_pixels_only():
    everyone = [member("a", 1, group="one"), member("b", 2, group="two"), member("c", 2, group="three"), member("d", 4)]
    found = group_members(everyone, near_of([(1, 2), (1, 4)]), {}, lambda name: "train")
    assert found.names == {"a": "one", "b": "three", "c": "three", "d": "one"}


def test_crops_of_one_file_share_its_group():
    found = group_members([member("a", 1, 2), member("b", 2), member("c", 1)], {}, {}, split)
    assert set(found.names.values()) == {"digest-a"}


def test_known_classes_keep_their_labels():
    known = Known({"folder": ["dog", "cat"]}, {})
    assert known.ordered("folder", {"cat", "ant", "zebra"}) == ["dog", "cat", "ant", "zebra"]
    assert known.ordered("folder", {"ant", "bee"}) == ["ant", "bee"]
    assert known.ordered("emoji", {"cat", "ant"}) == ["ant", "cat"], "another source's labels are its own"
    assert Known().ordered("folder", {"b", "a"}) == ["a", "b"]
