"""Finding a text that was mistyped: approximate matching with swapped, missing, doubled and wrong characters.

The distance is that of Damerau and Levenshtein with each character touched once (optimal string alignment): one for a
character put in, left out or replaced, and for two neighbours that changed places.

Notation: `n` characters of the text that is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

TYPOS = ((40, 3), (24, 2), (10, 1))
"""`(n, typos)`: a text of at least so many characters is known again with so many typos."""

PIECE_LENGTH = 4
"""Characters of a piece, where a text is long enough for them; shorter ones stand anywhere by chance."""


def typos_allowed(n: int) -> int:
    """How many typos a text of `n` characters is known again with."""
    return next((typos for least, typos in TYPOS if n >= least), 0)


def scan_distances(wanted: str, text: str, *, anywhere: bool) -> Iterator[int]:
    """The distance of `wanted` to what ends at each character of `text`, bit-parallel (Hyyrö 2003).

    Args:
        wanted: `n` characters, at least one.
        text: what is searched.
        anywhere: True compares with the best piece that ends there, False with all of the text up to there.
    """
    where: dict[str, int] = {}
    for place, character in enumerate(wanted):
        where[character] = where.get(character, 0) | 1 << place
    full = (1 << len(wanted)) - 1
    last = 1 << (len(wanted) - 1)
    plus, minus, diagonal, before = full, 0, 0, 0
    distance = len(wanted)
    for character in text:
        match = where.get(character, 0)
        swapped = ((~diagonal & match) << 1) & before
        diagonal = ((((match & plus) + plus) ^ plus) | match | minus | swapped) & full
        up = (minus | ~(diagonal | plus)) & full
        down = diagonal & plus
        distance += bool(up & last) - bool(down & last)
        up = up << 1 | (not anywhere)
        plus = (down << 1 | ~(diagonal | up)) & full
        minus = up & diagonal & full
        before = match
        yield distance


def distance(first: str, second: str) -> int:
    """The distance of two texts."""
    if not first or not second:
        return max(len(first), len(second))
    found = len(first)
    for found in scan_distances(first, second, anywhere=False):  # noqa: B007
        pass
    return found


@dataclass(frozen=True)
class Pieces:
    """A text cut into pieces, of which enough stay whole however the typos fall.

    Attributes:
        pieces: `(offset, piece)`.
        typos: how many are allowed.
        num_lost: pieces that so many typos can spoil; a swap may touch two.
        swaps: the two characters at each border between pieces, swapped.
    """

    pieces: tuple[tuple[int, str], ...]
    typos: int
    num_lost: int
    swaps: tuple[str, ...]

    @classmethod
    def of(cls, wanted: str, typos: int) -> Pieces:
        pieces = tuple((low, wanted[low:high]) for low, high in cut_pieces(len(wanted), typos))
        swaps = tuple(wanted[at] + wanted[at - 1] for at, _ in pieces[1:])
        return cls(pieces, typos, 2 * typos, swaps)

    def may_stand_in(self, text: str) -> bool:
        """See `may_stand_in`."""
        return may_stand_in("".join(piece for _, piece in self.pieces), self.typos, text)


@cache
def cut_pieces(n: int, typos: int) -> tuple[tuple[int, int], ...]:
    """Where the pieces of a text of `n` characters begin and end; twice as many as so many typos can spoil."""
    lost = 2 * typos
    count = max(lost + 1, min(2 * lost + 2, n // PIECE_LENGTH))
    return tuple(pairwise(n * part // count for part in range(count + 1)))


def may_stand_in(wanted: str, typos: int, text: str) -> bool:
    """Whether `text` has enough pieces of `wanted` that it may stand there mistyped; quick to say no."""
    spare = 2 * typos
    for low, high in cut_pieces(len(wanted), typos):
        if wanted[low:high] not in text:
            if not spare:
                return False
            spare -= 1
    return True


def find_mistyped(wanted: str, pieces: Pieces, text: str) -> list[tuple[int, int]]:
    """Where `text` holds `wanted` with at most the allowed typos: `(end, distance)`, the best of each place.

    Only places are looked at where enough pieces stand as far from each other as they should.
    """
    typos, needed = pieces.typos, len(pieces.pieces) - pieces.num_lost
    starts: list[tuple[int, int]] = []  # where the whole text would start, and by which piece
    for number, (offset, piece) in enumerate(pieces.pieces):
        at = text.find(piece)
        while at >= 0:
            starts.append((at - offset, number))
            at = text.find(piece, at + 1)
    if len(starts) < needed:
        return []
    starts.sort()
    found: dict[int, int] = {}
    low = 0
    scanned = -1
    for high, (start, _) in enumerate(starts):
        while start - starts[low][0] > 2 * typos:
            low += 1
        if high + 1 - low < needed:
            continue
        num_found = len({number for _, number in starts[low : high + 1]})
        if num_found < needed:
            continue
        first = max(0, starts[low][0] - typos)
        stop = start + len(wanted) + typos
        if stop <= scanned:
            continue
        near = text[first:stop]
        # a typo that spoils two pieces swaps the characters at their border
        if sum(map(near.__contains__, pieces.swaps)) < len(pieces.pieces) - num_found - typos:
            continue
        scanned = stop
        last = first + len(near)
        for end, value in enumerate(scan_distances(wanted, near, anywhere=True), first + 1):
            if value <= typos:
                found[end] = min(value, found.get(end, value))
            elif value - typos > last - end:  # each character brings it down by one at most
                break
    best: list[tuple[int, int]] = []
    for end, value in sorted(found.items()):
        if best and end - best[-1][0] <= 2 * typos + 1:
            if value < best[-1][1]:
                best[-1] = (end, value)
        else:
            best.append((end, value))
    return best
