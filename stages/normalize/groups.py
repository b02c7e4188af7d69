"""Names the group of every picture, so that a split never cuts near-duplicates and never moves what is known."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

SAME_GROUP = -2  # the source says that they belong together, which is nearer than identical pixels
IDENTICAL = -1
Split = Callable[[str], str]
Near = dict[int, list[tuple[int, int]]]  # of a look: other looks that nearly agree, and in how many bits they differ
Touch = tuple[int, str, str]  # bits, the name of the group that is touched, the key of a picture in it


@dataclass(frozen=True)
class Member:
    """A picture file: its key, short digest and the group that its source gives it, or nothing.

    `looks` are numbers of what its crops look like: two crops of one number have identical pixels.
    """

    key: str
    digest: str
    looks: tuple[int, ...]
    source_group: str = ""


@dataclass
class Grouping:
    """The group of every member by its key, and why others are set aside."""

    names: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)


def group_members(members: list[Member], near: Near, known: dict[str, str], split_of: Split) -> Grouping:
    """Return the groups of all members, the same for any order of them.

    What is known keeps its group. A newcomer with a group from its source keeps that, and only identical pixels
    merge two of them. The others are joined by all that is alike to clusters; a cluster that touches what is named
    already joins the nearest one's group, else it is named by the smallest digest in it. A newcomer that touches both
    splits belongs to neither and is set aside, as is a cluster that does so as a whole.
    """
    grouping = Grouping({m.key: known[m.digest] for m in members if m.digest in known})
    newcomers = [m for m in sorted(members, key=lambda m: m.key) if m.digest not in known]
    from_source = [m for m in newcomers if m.source_group]
    others = [m for m in newcomers if not m.source_group]
    _settle(grouping, members, from_source, {}, split_of)
    _settle(grouping, members, others, near, split_of)
    return grouping


def _settle(grouping: Grouping, members: list[Member], newcomers: list[Member], near: Near, split_of: Split) -> None:
    """Name the newcomers' groups, or set them aside."""
    touches = _touches(grouping.names, members, newcomers, near)
    torn = [m for m in newcomers if _is_torn(touches[m.key], split_of)]
    for member in torn:
        grouping.set_aside[member.key] = _reason(touches[member.key], split_of)
    for cluster in _clusters([m for m in newcomers if m.key not in grouping.set_aside], near):
        touched = [touch for member in cluster for touch in touches[member.key]]
        if _is_torn(touched, split_of):
            grouping.set_aside |= {member.key: _reason(touched, split_of) for member in cluster}
        else:
            name = min(touched)[1] if touched else min(member.source_group or member.digest for member in cluster)
            grouping.names |= {member.key: name for member in cluster}


def _touches(
    names: dict[str, str], members: list[Member], newcomers: list[Member], near: Near
) -> dict[str, list[Touch]]:
    """Return by key which named groups every newcomer is alike to."""
    of_look, of_source = _named(names, members)
    touches = {}
    for member in newcomers:
        found = [(SAME_GROUP, *group) for group in of_source[member.source_group].items()]
        for look in member.looks:
            for other, bits in [(look, IDENTICAL), *near.get(look, [])]:
                found += [(bits, *group) for group in of_look[other].items()]
        touches[member.key] = found
    return touches


def _named(names: dict[str, str], members: list[Member]) -> tuple[dict[int, dict[str, str]], dict[str, dict[str, str]]]:
    """Return the named groups that show a look, and those of a source's group, each with the first key in it."""
    of_look: dict[int, dict[str, str]] = defaultdict(dict)
    of_source: dict[str, dict[str, str]] = defaultdict(dict)
    for member in sorted((m for m in members if m.key in names), key=lambda m: m.key):
        for look in member.looks:
            of_look[look].setdefault(names[member.key], member.key)
        if member.source_group:
            of_source[member.source_group].setdefault(names[member.key], member.key)
    return of_look, of_source


def _is_torn(touched: list[Touch], split_of: Split) -> bool:
    return len({split_of(name) for _, name, _ in touched}) > 1


def _reason(touched: list[Touch], split_of: Split) -> str:
    nearest = {
        split: min((bits, key) for bits, name, key in touched if split_of(name) == split)[1]
        for split in ("train", "holdout")
    }
    return f"resembles pictures of both splits: {nearest['train']} (train) and {nearest['holdout']} (holdout)"


def _clusters(newcomers: list[Member], near: Near) -> list[list[Member]]:
    """Return the connected components of newcomers that share a look, a file or the source's group, or nearly agree."""
    nodes: dict[str | int, int] = {}
    edges = []
    for member in newcomers:
        node = nodes.setdefault(f"member {member.key}", len(nodes))
        shared: list[str | int] = [*member.looks, f"group {member.source_group}" if member.source_group else ""]
        edges += [(node, nodes.setdefault(one, len(nodes))) for one in [*shared, f"file {member.digest}"] if one != ""]
    for look in [node for node in list(nodes) if isinstance(node, int)]:
        edges += [(nodes[look], nodes[other]) for other, _ in near.get(look, []) if other in nodes]
    labels = components(len(nodes), edges)
    clusters: dict[int, list[Member]] = defaultdict(list)
    for member in newcomers:
        clusters[labels[nodes[f"member {member.key}"]]].append(member)
    return list(clusters.values())


def components(size: int, edges: list[tuple[int, int]]) -> list[int]:
    """Return for each of so many nodes the number of its connected component, the smallest node in it.

    Union-find with path halving: scipy's csgraph does the same, but takes half a second to be imported.
    """
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for one, other in edges:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(node) for node in range(size)]
