"""Text as checks compare it: words without case, accents, width, punctuation and layout.

A word is a run of letters and digits, or one CJK character, which are written without spaces. `Café-Crème №5`,
`cafe creme 5` and `ＣＡＦÉ  crème, 5` are the same three words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import pairwise

_CJK_RANGES = (
    "\u3040-\u30ff\u31f0-\u31ff"  # kana, written without spaces like the ideographs
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
)
_CJK = re.compile(f"[{_CJK_RANGES}]")
_APOSTROPHES = "'\u2019\u2018\u02bc\u02b9`\u00b4\uff07"
_LAST_ACCENTED = 0x052F  # Latin, Greek and Cyrillic: accents are dropped; marks of other scripts tell letters apart


_LOOK_ALIKES = str.maketrans("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u03bf", "aeopcyxijsho")
"""Small letters of other alphabets that no eye tells from Latin ones; the same word, whichever is written."""


class _Fold(dict[str, str]):
    """Character -> what it becomes; fills itself."""

    def __missing__(self, character: str) -> str:
        self[character] = folded = _fold(character)
        return folded


def _fold(character: str) -> str:
    category = unicodedata.category(character)
    if character in _APOSTROPHES or category in ("Cf", "Mn", "Me"):  # joiners, soft hyphens, loose accents
        return ""
    if category[0] in "ZPSC":
        return " "
    if category == "Nd":
        return str(unicodedata.digit(character))
    folded = unicodedata.normalize("NFKC", character).casefold().translate(_LOOK_ALIKES)
    if ord(unicodedata.normalize("NFKD", folded)[0]) <= _LAST_ACCENTED:
        folded = "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c))
    # what a character falls into is folded like any other: loose marks are dropped
    kept = "".join("" if unicodedata.category(c) in ("Mn", "Me") else c if _is_letter(c) else " " for c in folded)
    return _CJK.sub(r" \g<0> ", kept)


def _is_letter(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character) == "Mc"


_ASCII = bytes(ord(_fold(chr(code)) or " ") for code in range(128)) + bytes(128)
_ASCII_DROPPED = bytes(code for code in range(128) if not _fold(chr(code)))
_FOLD = _Fold()


class Normalised:
    """A text as words.

    Attributes:
        words: the words.
        spaced: each of them with a space before and after: `' red nail polish '`; one space where there is none.
        squeezed: all of them without spaces.
        word_set: the different words.
    """

    __slots__ = ("spaced", "squeezed", "word_set", "words")

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.spaced = f" {' '.join(words)} " if words else " "
        self.squeezed = "".join(words)
        self.word_set = frozenset(words)


@lru_cache(maxsize=16)
def normalise(text: str) -> Normalised:
    """The words of a text; the last ones are kept, because several checks ask for the words of one trace.

    Only the last: what is kept for longer crowds a processor's caches.
    """
    if text.isascii():
        return Normalised(text.encode("ascii").translate(_ASCII, _ASCII_DROPPED).decode("ascii").split())
    return Normalised("".join(map(_FOLD.__getitem__, text)).split())


def is_cjk(word: str) -> bool:
    """Whether a word is one CJK character."""
    return len(word) == 1 and _CJK.match(word) is not None


def mostly_cjk(words: list[str] | tuple[str, ...]) -> bool:
    """Whether at least half of the words are single CJK characters."""
    if all(map(str.isascii, words)):
        return False
    return 2 * sum(map(is_cjk, words)) >= len(words)


def share_a_word(first: str, second: str) -> bool:
    """Whether two texts have a word of three letters or more in common, or two CJK characters in a row."""
    words = [w for w in normalise(second).words if len(w) > 2 or not w.isascii()]
    spaced = normalise(first).spaced
    if any(word.isascii() and f" {word} " in spaced for word in words):
        return True
    return any(f" {a} {b} " in spaced for a, b in pairwise(words) if not (a.isascii() or b.isascii()))


def cjk_share(text: str) -> float:
    """Share of the letters that are Chinese or Japanese characters; 0 for a text without letters."""
    if text.isascii():
        return 0.0
    letters = "".join(filter(str.isalpha, text))
    return len(_CJK.findall(letters)) / len(letters) if letters else 0.0
