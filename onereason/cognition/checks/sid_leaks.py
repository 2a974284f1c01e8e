"""Whether a trace gives away the semantic id of its answer, as tokens, as pieces of them, or as numbers.

Whole patterns of other items of the catalogue are citations, and are set aside first: an item of the history often
shares its first codes with the answer. What is left over must not point to the answer.

Notation: `L` levels; a code is a number at one level.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property

from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.lexicon import all_words
from onereason.cognition.normalise import Normalised, normalise
from onereason.itemic.format import ItemicFormat, level_letter

_UNIT = re.compile(r"\d+|[a-z]+|[^\sa-z\d]")
_FILLERS = all_words("code_fillers")
_LEVEL_WORDS = frozenset(("level", "layer", "第"))
_ORDINALS = {"一": 1, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6}
_MAX_DIGITS = 9
_TELLING_CODE = 100
"""Of two bare codes, one must be as large as this; smaller numbers stand side by side for other reasons."""


class Target:
    """The semantic id of an answer, in the spellings it is looked for."""

    __slots__ = ("codes", "joined", "numbers", "pattern", "rare")

    def __init__(self, pattern: str, codes: Sequence[int], format: ItemicFormat, rare_levels: Collection[int] = ()):
        """
        Args:
            pattern: the itemic pattern.
            codes: `L` codes.
            format: of the pattern.
            rare_levels: levels whose code few items bear, so that this token alone tells which item is meant.
        """
        tokens = [format.code_name(level, code) for level, code in enumerate(codes)]
        self.pattern = pattern
        self.codes = tuple(codes)
        self.joined = "".join(tokens)
        self.numbers = tuple(map(str, self.codes))
        self.rare = [(tokens[level], normalise(tokens[level]).spaced) for level in sorted(rare_levels)]


class SidReader:
    """Reads traces for the semantic id of a target."""

    def __init__(self, patterns: PatternReader, known: frozenset[str] | None = None) -> None:
        """
        Args:
            patterns: reader of the catalogue's format.
            known: the patterns of the catalogue's items; where it is not given, every whole pattern is a citation.
        """
        self.format = patterns.format
        self.known = known
        self.patterns = patterns
        self._closed = self.patterns.number_end

    @cached_property
    def prefix_words(self) -> frozenset[str]:
        """Words that a code token is spelled with beside its level and its code, e.g. `s` of `<s_a_1>`."""
        spelled = self.format.code_token.replace("{level}", " ").replace("{code}", " ")
        return frozenset(word for word in normalise(spelled).words if word.isalpha())

    def _stands(self, piece: str, text: str) -> bool:
        return piece in text and (not self._closed or re.search(re.escape(piece) + self._closed, text) is not None)

    def set_aside(self, trace: str, target: Target, shown: Collection[str] = ()) -> str:
        """The trace without its citations: whole patterns of the catalogue's items, save those with the target's codes.

        Args:
            shown: patterns the prompt shows; one with the target's codes in another domain is a citation.
        """
        patterns, rest = self.patterns.read(trace)
        if target.joined not in trace and (self.known is None or self.known.issuperset(patterns)):
            return rest

        def replace(match: re.Match[str]) -> str:
            pattern = match.group()
            if match.groups() == target.numbers:
                return " " if pattern in shown and pattern != target.pattern else pattern
            return " " if self.known is None or pattern in self.known else pattern

        return self.patterns.whole.sub(replace, trace)

    def find(self, trace: str, rest: str, words: Normalised, target: Target) -> list[tuple[str, str]]:
        """`(kind, excerpt)` of what a trace tells of the target's semantic id.

        Args:
            rest: the trace without its citations (`set_aside`).
            words: the words of the rest.
        """
        if target.joined in trace:
            if target.pattern in trace and self._stands(target.pattern, trace):
                return [("pattern", target.pattern)]
            if target.joined in rest and self._stands(target.joined, rest):
                return [("pattern_codes", target.joined)]
        spaced, num_codes = words.spaced, len(target.codes)
        num_stand = sum(map(spaced.__contains__, target.numbers))
        if not num_stand:  # nor does any token, whose number would
            return []
        if num_codes > 1 and num_stand >= num_codes - (num_codes > 2):
            found = self._read_numbers(spaced, target)
            if found:
                return found
        for token, token_words in target.rare:
            # Without a word of its own, a token such as <a_12> reads like an article and a number.
            if (token_words in spaced and self.prefix_words) or (token in rest and self._stands(token, rest)):
                return [("rare_code", token)]
        return []

    def _read_numbers(self, spaced: str, target: Target) -> list[tuple[str, str]]:
        codes = target.codes
        telling = len(codes) > 2 or max(codes) >= _TELLING_CODE
        for run in self._runs(spaced):
            levels: list[int] = []  # in the order of the text
            for level, number, _ in run:
                if 0 <= level < len(codes) and number == codes[level] and level not in levels:
                    levels.append(level)
            text = " ".join(word for _, _, word in run)
            if len(levels) >= max(2, len(codes) - 1):
                whole = "pattern_spelled" if len(levels) == len(codes) else "sid_part"
                return [(whole if levels == sorted(levels) else "sid_shuffled", text)]
            if telling and _holds([number for _, number, _ in run], codes):
                return [("pattern_spelled", text)]
        return []

    def _runs(self, spaced: str) -> list[list[tuple[int, int, str]]]:
        """Numbers that stand together: `(level named before it or -1, number, as it is written)`."""
        letters = {level_letter(level): level for level in range(self.format.num_levels)}
        for word in self.prefix_words:
            letters.update({word + letter: level for letter, level in list(letters.items()) if len(letter) == 1})
        runs: list[list[tuple[int, int, str]]] = [[]]
        level, counts_levels = -1, False
        for unit in _UNIT.findall(spaced):
            if counts_levels and (unit in _ORDINALS or unit.isdecimal()):
                level, counts_levels = _ORDINALS.get(unit) or int(unit[:_MAX_DIGITS]), False
                level -= 1
                continue
            counts_levels = unit in _LEVEL_WORDS
            if unit.isdecimal():
                # A date writes 03, a code is written 3; more digits than any code has are none.
                is_code = len(unit) <= _MAX_DIGITS and (unit == "0" or unit[0] != "0")
                runs[-1].append((level, int(unit) if is_code else -1, unit))
                level = -1
            elif unit in letters:
                level = letters[unit]
            elif unit not in _FILLERS and unit not in self.prefix_words and not counts_levels:
                level = -1
                if runs[-1]:
                    runs.append([])
        return [run for run in runs if run]


def _holds(numbers: Sequence[int], codes: Sequence[int]) -> bool:
    """Whether the codes stand one directly after another among the numbers."""
    wanted = list(codes)
    return any(list(numbers[at : at + len(wanted)]) == wanted for at in range(len(numbers) - len(wanted) + 1))
