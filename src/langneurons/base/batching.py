"""Which sequences go through a model together: by length, within a budget of tokens."""

from collections.abc import Sequence


def batches(
    lengths: Sequence[int], batch_tokens: int, groups: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    """Group items by length so that each padded batch stays within a budget of tokens.

    Longest first; an item longer than the budget stands alone. `groups` are items that should
    stand side by side; without them each item is a group.
    """
    if groups is None:
        groups = [[i] for i in range(len(lengths))]
    sorted_groups = [sorted(group, key=lambda i: (-lengths[i], i)) for group in groups]
    sorted_groups.sort(key=lambda group: (-lengths[group[0]], group[0]))
    found: list[list[int]] = []
    longest = 0
    for index in (i for group in sorted_groups for i in group):
        longest = max(longest, lengths[index])
        if found and longest * (len(found[-1]) + 1) <= batch_tokens:
            found[-1].append(index)
        else:
            found.append([index])
            longest = lengths[index]
    return found
