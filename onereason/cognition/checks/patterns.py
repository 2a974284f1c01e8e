"""Whole itemic patterns in text, found quickly: a regular expression made from the format.

`ItemicFormat.parse` is the reader of record, and says what is malformed. This one only finds what is whole.
"""

from __future__ import annotations

import re

from onereason.itemic.format import ItemicFormat, level_letter


class PatternReader:
    """Takes texts apart: whole patterns, and the rest.

    The last text is remembered, because several checks read one trace after another.

    Attributes:
        format: the itemic format.
        whole: a pattern as the format writes it, a group for each code; codes may be larger than the format's.
        token: a begin, end or code token, wherever it stands.
        last_characters: that a pattern may end with.
        number_end: what closes an expression for tokens: one that ends on its number ends where the digits do.
    """

    def __init__(self, format: ItemicFormat) -> None:
        self.format = format
        self.number_end = r"(?!\d)" if format.code_token.endswith("{code}") else ""
        begins = [marker.begin for marker in format.domains.values() if marker.begin is not None]
        ends = [marker.end for marker in format.domains.values() if marker.end is not None]
        begin = f"(?:{'|'.join(map(re.escape, begins))})" if begins else ""
        end = f"(?:{'|'.join(map(re.escape, ends))})" if ends and format.render_end else ""
        token = re.escape(format.code_token)
        codes = "".join(token.replace(r"\{level\}", level_letter(level)) for level in range(format.num_levels))
        whole = begin + codes + end + self.number_end
        self.whole = re.compile(whole.replace(r"\{code\}", "(0|[1-9][0-9]*)"))
        self._cut = re.compile("(" + whole.replace(r"\{code\}", "(?:0|[1-9][0-9]*)") + ")")
        closes = (
            [marker[-1] for marker in ends] if end else format.code_token[-1:] if not self.number_end else "0123456789"
        )
        self.last_characters = frozenset(closes)
        markers = map(re.escape, sorted(format.marker_tokens, key=len, reverse=True))
        any_code = token.replace(r"\{level\}", "[a-z]").replace(r"\{code\}", "[0-9]+")
        self.token = re.compile("|".join([*markers, any_code]))
        self._starts = tuple({marker[0] for marker in format.marker_tokens} | {format.code_token.partition("{")[0][:1]})
        self._last: tuple[str, list[str], str] = ("", [], "")

    def read(self, text: str) -> tuple[list[str], str]:
        """The whole patterns of a text, in order, and the text with a space in the place of each."""
        if text == self._last[0]:
            return self._last[1], self._last[2]
        pieces = self._cut.split(text)
        self._last = (text, pieces[1::2], " ".join(pieces[::2]))
        return self._last[1], self._last[2]

    def remove(self, text: str) -> str:
        """A text with a space in the place of each whole pattern; the last text stays remembered."""
        return " ".join(self._cut.split(text)[::2])

    def find_stray(self, text: str) -> str | None:
        """The first itemic token of a text outside whole patterns; None where there is none."""
        _, rest = self.read(text)
        if not any(map(rest.__contains__, self._starts)):
            return None
        match = self.token.search(rest)
        return match.group() if match else None

    def parse_pattern(self, pattern: str) -> tuple[int, ...]:
        """The codes of one pattern; `ValueError` where the text is none."""
        match = self.whole.fullmatch(pattern)
        if match is None:
            raise ValueError(f"{pattern!r} is not a pattern of format {self.format.name!r}.")
        return tuple(map(int, match.groups()))
