"""Out of memory on the accelerator: the batch is halved and the work goes on.

A batch that does not fit is cut in two until it does. Every row still counts once, so results agree
up to the rounding of matrix products of another size. A single row that does not fit is an error
that says what to do.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

log = logging.getLogger(__name__)
CPU_MESSAGE = "can't allocate memory"


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the accelerator's or the host's memory is exhausted."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_MESSAGE in str(error)


def release() -> None:
    """Give cached blocks back to the accelerator."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class TooLarge(RuntimeError):
    """One row alone does not fit into memory."""

    def __init__(self, what: str, error: BaseException):
        super().__init__(
            f"out of memory with one {what} at a time; take a GPU with more memory, a smaller dtype"
            f" or a quantized model, or shorter texts. First line of the error:"
            f" {str(error).splitlines()[0]}"
        )


def more_parts(batch_size: int, parts: int) -> int | None:
    """Return the next larger number of equal parts into which a batch can be cut, if there is one.

    The first that at least halves the rows of a part is taken.
    """
    larger = [n for n in range(parts + 1, batch_size + 1) if batch_size % n == 0]
    halved = [n for n in larger if n >= 2 * parts]
    return next(iter(halved), None)


class Batches:
    """Batches of indices that are halved where they do not fit.

    for group in work:
        with work.fitting():
            ...  # must leave no trace of a group before its last statement

    Once a size has failed, later batches that are as large (rows x longest, by `sizes`) are cut
    beforehand.
    """

    def __init__(self, groups: Iterable[Sequence[int]], sizes: Sequence[int], what: str = "row"):
        self._groups = deque(list(group) for group in groups)
        self._sizes, self._what = sizes, what
        self._limit: int | None = None
        self._group: list[int] = []

    def _size(self, group: Sequence[int]) -> int:
        return len(group) * max(self._sizes[i] for i in group)

    def _halve(self, group: list[int]) -> None:
        middle = (len(group) + 1) // 2
        self._groups.extendleft([group[middle:], group[:middle]])

    def __iter__(self) -> Iterator[list[int]]:
        while self._groups:
            group = self._groups.popleft()
            too_large = self._limit is not None and self._size(group) >= self._limit
            if too_large and len(group) > 1:
                self._halve(group)
                continue
            self._group = group
            yield group

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Halve the group of this turn if its block runs out of memory."""
        try:
            yield
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(self._group) == 1:
                raise TooLarge(self._what, error) from error
            self._limit = self._size(self._group)
            log.warning("out of memory with a batch of %d; halved", len(self._group))
            self._halve(self._group)
            release()
