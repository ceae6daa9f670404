"""One way into the package, and how its input is damaged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.mutations import Through, mutate


@dataclass(frozen=True)
class Reader:
    """One way into the package.

    Attributes:
        file: under which name the damaged file lies; the extension decides much.
        seeds: real files, given a folder to work in.
        read: reads the file at a path to its end; what it asserts of the result must hold.
        refuses: the errors in which it may end.
        through: how to get at what lies within a container.
    """

    name: str
    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...]
    through: Through | None = None

    def inputs(self, folder: Path, first: int, stop: int) -> Iterator[bytes]:
        """The damaged files with these numbers; always the same ones."""
        seeds = self.seeds(folder)
        for number in range(first, stop):
            yield self.damage(Random(f"{self.name} {number}"), seeds)

    def damage(self, random: Random, seeds: list[bytes]) -> bytes:
        """A damaged copy of one of the seeds; half of the time, damaged within the container."""
        seed = random.choice(seeds)
        if self.through is None or random.random() < 0.5:
            return mutate(random, seed, seeds)
        return self.through(random, seed, partial(mutate, random))
