"""Which sequences should share the computation of what they begin with."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

# A group must save this share of its tokens, or a second forward pass does not pay.
WORTH = 0.2

Groups = list[tuple[list[int], int]]


def common(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Return the number of leading items in which two sequences agree."""
    for number, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return number
    return min(len(first), len(second))


@dataclass
class _Part:
    """Sequences with a common beginning, by place in sorted order, and the best groups in them."""

    members: range
    saved: int = 0
    groups: Groups = field(default_factory=list)


@dataclass
class _Node:
    """A beginning of `depth` items that several sequences have, and the parts seen so far."""

    depth: int
    parts: list[_Part] = field(default_factory=list)

    def closed(self, sizes: Sequence[int], worth: float) -> _Part:
        """Return the node as a part: some of its parts in one group, the others as they are."""
        joined = [p for p in self.parts if len(p.members) * self.depth >= p.saved]
        members = [i for part in joined for i in part.members]
        saved = max(len(members) - 1, 0) * self.depth
        enough = max(sum(part.saved for part in joined), worth * sum(sizes[i] for i in members))
        apart = self.parts
        result = _Part(range(self.parts[0].members.start, self.parts[-1].members.stop))
        if saved and saved >= enough:
            apart = [p for p in self.parts if len(p.members) * self.depth < p.saved]
            result.saved, result.groups = saved, [(members, self.depth)]
        for part in apart:
            result.saved += part.saved
            result.groups += part.groups
        return result


def groups(sequences: Sequence[tuple], worth: float = WORTH) -> Groups:
    """Return disjoint groups of sequences, each with the number of leading items they share.

    A group saves (members - 1) x shared items, which must be at least `worth` of its items. Along
    the tree of common beginnings, from the longest, groups are joined where that saves more; no
    single group saves more than the groups returned.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    sizes = [len(sequences[i]) for i in order]
    # The tree of common beginnings, left to right: the stack is the path to the current leaf.
    stack = [_Node(0)]
    for i in range(len(order)):
        shared = 0
        if i + 1 < len(order):
            shared = common(sequences[order[i]], sequences[order[i + 1]])
        part = _Part(range(i, i + 1))
        while stack[-1].depth > shared:
            stack[-1].parts.append(part)
            part = stack.pop().closed(sizes, worth)
        if stack[-1].depth < shared:
            stack.append(_Node(shared))
        stack[-1].parts.append(part)
    if not order:
        return []
    found = stack[0].closed(sizes, worth).groups
    return [(sorted(order[i] for i in members), depth) for members, depth in found]
