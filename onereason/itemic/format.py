"""Itemic formats: how an item is spelled as tokens.

An *itemic pattern* is one item in text: an optional begin token that names the domain, one code token a level, and an
optional end token. A format *declares* the pattern; nothing in the toolkit hard-codes one. Presets cover the public
formats; any other is declared in YAML (`load_format("my_format.yaml")`).

Notation: `L` levels, `N` items; codes are integers `[N, L]`, code `c` of level `l` in `0 .. codes_per_level[l] - 1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from onereason.errors import FormatError

ANY_DOMAIN = "*"
"""Name of the only domain of a format whose tokens do not tell domains apart."""


@dataclass(frozen=True)
class Marker:
    """The tokens around the codes of one domain's items; `None` where the format has no such token."""

    begin: str | None = None
    end: str | None = None


@dataclass(frozen=True)
class ItemicPattern:
    """One item found in text: its domain, codes `[L]`, and the character span `text[start:end]`."""

    domain: str
    codes: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class ItemicText:
    """What `ItemicFormat.parse` found: whole patterns, and how many runs of itemic tokens are not whole patterns."""

    items: tuple[ItemicPattern, ...]
    num_malformed: int


@dataclass(frozen=True)
class ItemicFormat:
    """A declared pattern.

    Attributes:
        name: what people call it.
        codes_per_level: how many codes each level has; its length is the number of levels.
        code_token: spelling of a code token; `{level}` is the level's letter (a, b, ...), `{code}` the number.
        domains: domain name -> `Marker`, in the order of the vocabulary; `{"*": Marker()}` where tokens do not
            tell domains apart.
        render_end: whether a rendered pattern closes with the end token (OneReason owns end tokens it never writes).
        markers_first: whether begin / end tokens precede the code tokens in the vocabulary.
    """

    name: str
    codes_per_level: tuple[int, ...]
    code_token: str
    domains: Mapping[str, Marker]
    render_end: bool = False
    markers_first: bool = False

    def __post_init__(self) -> None:
        if not self.codes_per_level or len(self.codes_per_level) > 26:
            raise FormatError(f"format {self.name!r}: levels must be 1 to 26, got {len(self.codes_per_level)}.")
        if any(int(c) < 1 for c in self.codes_per_level):
            raise FormatError(f"format {self.name!r}: every level needs at least 1 code, got {self.codes_per_level}.")
        plain = self.code_token.replace("{level}", "", 1).replace("{code}", "", 1)
        if len(plain) != len(self.code_token) - len("{level}{code}") or "{" in plain or "}" in plain:
            raise FormatError(
                f"format {self.name!r}: code_token {self.code_token!r} must contain '{{level}}' and '{{code}}' once "
                "each and no other brace, e.g. '<s_{level}_{code}>'."
            )
        if not self.domains:
            raise FormatError(f"format {self.name!r}: needs at least one domain; use '*' where tokens name none.")
        if ANY_DOMAIN in self.domains and len(self.domains) > 1:
            raise FormatError(f"format {self.name!r}: the domain '*' stands alone, got {list(self.domains)}.")
        begins = [m.begin for m in self.domains.values()]
        if len(begins) > 1 and (None in begins or len(set(begins)) < len(begins)):
            raise FormatError(f"format {self.name!r}: each of several domains needs a begin token of its own.")
        if self.render_end and any(m.end is None for m in self.domains.values()):
            raise FormatError(f"format {self.name!r}: render_end needs an end token in every domain.")
        markers = self.marker_tokens
        if "" in markers:
            raise FormatError(f"format {self.name!r}: a begin or end token is empty; leave it out instead.")
        if len(set(markers)) < len(markers) or any(self._code_regex.fullmatch(t) for t in markers):
            raise FormatError(f"format {self.name!r}: two tokens are spelled alike among {markers}.")
        self._check_reads_back()

    def _check_reads_back(self) -> None:
        """`FormatError` where patterns written one after another cannot be told apart (`1a2` + `3b4` has a 23)."""
        low, high = [0] * self.num_levels, [size - 1 for size in self.codes_per_level]
        written = [(tuple(codes), d) for d in self.domains for codes in (high, low, high)]
        found = self.parse("".join(self.render(codes, domain) for codes, domain in written))
        if [(i.codes, i.domain) for i in found.items] != written or found.num_malformed:
            raise FormatError(
                f"format {self.name!r}: patterns such as {self.render(high, written[0][1])!r} do not read back when "
                "they stand one after another; close tokens with a character of their own, e.g. '<s_{level}_{code}>'."
            )

    # A mapping is equal to another in any order; the order of domains is the order of ids.

    def _key(self) -> tuple[Any, ...]:
        shape = (self.name, tuple(self.codes_per_level), self.code_token, tuple(self.domains.items()))
        return (*shape, self.render_end, self.markers_first)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, ItemicFormat) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    # -- shape ----------------------------------------------------------------------------------------------------

    @property
    def num_levels(self) -> int:
        return len(self.codes_per_level)

    @property
    def num_codes(self) -> int:
        """Code tokens of all levels."""
        return sum(self.codes_per_level)

    @property
    def has_begin(self) -> bool:
        return next(iter(self.domains.values())).begin is not None

    @property
    def pattern_length(self) -> int:
        """Tokens in a rendered pattern."""
        return self.has_begin + self.num_levels + self.render_end

    def with_shape(self, levels: int | None = None, codes: int | None = None) -> ItemicFormat:
        """The same spelling with another number of levels or codes a level."""
        levels = self.num_levels if levels is None else levels
        if not 1 <= levels <= 26:  # a negative number of levels would become none below
            raise FormatError(f"format {self.name!r}: levels must be 1 to 26, got {levels}.")
        if codes is None and len(set(self.codes_per_level)) > 1 and levels != self.num_levels:
            raise FormatError(f"format {self.name!r} has levels of unequal size; give codes together with levels.")
        sizes = (codes,) * levels if codes is not None else (self.codes_per_level[0],) * levels
        if codes is None and levels == self.num_levels:
            sizes = self.codes_per_level
        return replace(self, codes_per_level=sizes)

    def validate_codes(self, codes: Sequence[int]) -> None:
        """`FormatError` unless `codes` [L] are codes of this format."""
        if len(codes) != self.num_levels:
            raise FormatError(
                f"sid {list(codes)} has {len(codes)} levels, format {self.name!r} has {self.num_levels}; "
                "use the format (or --levels) the ids were made with."
            )
        for level, (code, size) in enumerate(zip(codes, self.codes_per_level, strict=True)):
            if not 0 <= code < size:
                raise FormatError(
                    f"code {code} at level {level_letter(level)} is outside format {self.name!r} (0 to {size - 1}); "
                    "use the format (or --codes) the ids were made with."
                )

    def marker(self, domain: str) -> Marker:
        """The begin / end tokens of a domain's items."""
        if ANY_DOMAIN in self.domains:
            return self.domains[ANY_DOMAIN]
        if domain not in self.domains:
            raise FormatError(
                f"domain {domain!r} is not in format {self.name!r} (it has {', '.join(self.domains)}); "
                "rename the domain in the data or declare a format that has it."
            )
        return self.domains[domain]

    # -- vocabulary -----------------------------------------------------------------------------------------------

    @property
    def marker_tokens(self) -> list[str]:
        return [t for m in self.domains.values() for t in (m.begin, m.end) if t is not None]

    def code_name(self, level: int, code: int) -> str:
        return self.code_token.format(level=level_letter(level), code=code)

    def tokens(self) -> list[str]:
        """Every token of the format, in the order of its ids."""
        codes = [self.code_name(lv, c) for lv, size in enumerate(self.codes_per_level) for c in range(size)]
        return self.marker_tokens + codes if self.markers_first else codes + self.marker_tokens

    @property
    def num_tokens(self) -> int:
        return self.num_codes + len(self.marker_tokens)

    # -- text -----------------------------------------------------------------------------------------------------

    def render(self, codes: Sequence[int], domain: str = ANY_DOMAIN) -> str:
        """The pattern of one item, e.g. `<|video_begin|><s_a_1><s_b_2><s_c_3>`."""
        self.validate_codes(codes)
        marker = self.marker(domain)
        text = (marker.begin or "") + "".join(self.code_name(level, code) for level, code in enumerate(codes))
        return text + (marker.end or "" if self.render_end else "")

    @cached_property
    def _code_regex(self) -> re.Pattern[str]:
        spelled = re.escape(self.code_token).replace(r"\{level\}", "([a-z])").replace(r"\{code\}", "(0|[1-9][0-9]*)")
        return re.compile(spelled)

    @cached_property
    def _token_regex(self) -> re.Pattern[str]:
        markers = sorted(self.marker_tokens, key=len, reverse=True)  # a marker may begin like a shorter one
        parts = [f"(?P<marker>{'|'.join(map(re.escape, markers))})"] if markers else []
        spelled = re.escape(self.code_token)
        spelled = spelled.replace(r"\{level\}", "(?P<level>[a-z])").replace(r"\{code\}", "(?P<code>0|[1-9][0-9]*)")
        return re.compile("|".join([*parts, spelled]))

    def parse(self, text: str) -> ItemicText:
        """Every whole pattern in `text`, in order, and a count of broken ones.

        Tokens of a pattern stand directly one after another. A run of itemic tokens that is not a whole legal pattern
        (a level missing or out of order, a code outside the format, a begin token without codes) counts as malformed;
        text between patterns is ignored. Where a format owns end tokens it does not render, an end token after a
        whole pattern is accepted as part of it.
        """
        begin_domain: dict[str | None, str] = {m.begin: d for d, m in self.domains.items() if m.begin is not None}
        items: list[ItemicPattern] = []
        malformed = 0
        tokens = list(self._token_regex.finditer(text))
        i = 0
        while i < len(tokens):
            start = tokens[i]
            domain = ANY_DOMAIN
            j = i
            if self.has_begin:
                if start.group() not in begin_domain:
                    malformed += 1
                    i = self._skip_run(tokens, i, begin_domain)
                    continue
                domain = begin_domain[start.group()]
                j += 1
            codes: list[int] = []
            position = tokens[j - 1].end() if j > i else start.start()
            while j < len(tokens) and len(codes) < self.num_levels and tokens[j].start() == position:
                level, code = tokens[j].groupdict().get("level"), tokens[j].groupdict().get("code") or ""
                size = self.codes_per_level[len(codes)]
                if level != level_letter(len(codes)) or len(code) > len(str(size)) or int(code) >= size:
                    break
                codes.append(int(code))
                position = tokens[j].end()
                j += 1
            whole = len(codes) == self.num_levels
            end = self.marker(domain).end
            if whole and end is not None:
                if j < len(tokens) and tokens[j].start() == position and tokens[j].group() == end:
                    position = tokens[j].end()
                    j += 1
                elif self.render_end:
                    whole = False
            if whole:
                items.append(ItemicPattern(domain, tuple(codes), start.start(), position))
                i = j
            else:
                malformed += 1
                i = self._skip_run(tokens, max(j - 1, i), begin_domain)
        return ItemicText(tuple(items), malformed)

    def _skip_run(self, tokens: list[re.Match[str]], i: int, begin_domain: Mapping[str | None, str]) -> int:
        """The index of the next token that can start a pattern, after the broken one at `i`."""
        i += 1
        while i < len(tokens):
            opens = tokens[i].group() in begin_domain if self.has_begin else tokens[i].groupdict().get("level") == "a"
            if opens or tokens[i].start() != tokens[i - 1].end():
                return i
            i += 1
        return i

    # -- storage --------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "codes_per_level": list(self.codes_per_level),
            "code_token": self.code_token,
            "domains": {d: {"begin": m.begin, "end": m.end} for d, m in self.domains.items()},
            "render_end": self.render_end,
            "markers_first": self.markers_first,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], source: str = "itemic format") -> ItemicFormat:
        """Reads what `to_dict` wrote, or a user's YAML of the same shape."""
        known = {"name", "codes_per_level", "code_token", "domains", "render_end", "markers_first"}
        if not isinstance(value, Mapping) or not {"name", "codes_per_level", "code_token", "domains"} <= set(value):
            raise FormatError(f"{source}: expected the keys name, codes_per_level, code_token, domains.")
        if set(value) - known:
            raise FormatError(f"{source}: unknown keys {sorted(set(value) - known)}; known are {sorted(known)}.")
        if not isinstance(value["codes_per_level"], list | tuple) or not isinstance(value["domains"], Mapping):
            raise FormatError(
                f"{source}: codes_per_level should be a list such as [256, 256, 256], domains a mapping such as "
                "{item: {begin: <|item_begin|>}}."
            )
        try:
            return cls(
                name=str(value["name"]),
                codes_per_level=tuple(int(c) for c in value["codes_per_level"]),
                code_token=str(value["code_token"]),
                domains={str(d): Marker(**(m or {})) for d, m in value["domains"].items()},
                render_end=bool(value.get("render_end", False)),
                markers_first=bool(value.get("markers_first", False)),
            )
        except (TypeError, AttributeError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{source}: {error}.") from error


def level_letter(level: int) -> str:
    """`a` for level 0, `b` for level 1, ..."""
    return chr(ord("a") + level)


_SID = {ANY_DOMAIN: Marker("<|sid_begin|>", "<|sid_end|>")}
PRESETS: dict[str, ItemicFormat] = {
    f.name: f
    for f in (
        ItemicFormat(
            "onereason",
            (8192,) * 3,
            "<s_{level}_{code}>",
            {d: Marker(f"<|{d}_begin|>", f"<|{d}_end|>") for d in ("video", "prod", "living", "ad")},
        ),
        ItemicFormat("openonerec", (8192,) * 3, "<s_{level}_{code}>", _SID, render_end=True, markers_first=True),
        ItemicFormat("onerec_think", (256,) * 4, "<s_{level}_{code}>", _SID, render_end=True, markers_first=True),
        ItemicFormat(
            "onerec_think_paper",
            (8192,) * 3,
            "<item_{level}_{code}>",
            {ANY_DOMAIN: Marker("<|item_begin|>", "<|item_end|>")},
            render_end=True,
            markers_first=True,
        ),
        ItemicFormat("minionerec", (256,) * 3, "<{level}_{code}>", {ANY_DOMAIN: Marker()}),
    )
}
"""The public formats (name -> format); shapes other than these come from `with_shape`."""


def load_format(name_or_path: str | Path, levels: int | None = None, codes: int | None = None) -> ItemicFormat:
    """A preset by name, or a format declared in a YAML file, optionally with another shape."""
    if str(name_or_path) in PRESETS:
        found = PRESETS[str(name_or_path)]
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise FormatError(
                f"itemic format {str(name_or_path)!r} is neither a preset ({', '.join(PRESETS)}) nor a YAML file."
            )
        try:
            found = ItemicFormat.from_dict(yaml.safe_load(path.read_text("utf-8")), source=f"itemic format {path}")
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise FormatError(f"itemic format {path} is not valid YAML: {error}.") from error
    return found if levels is None and codes is None else found.with_shape(levels, codes)
