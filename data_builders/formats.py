"""The itemic formats of corpora: which one a corpus records, how its rows spell items, and whether corpora agree.

Tokens of one format are strings of letters to a model of another, so that corpora of different formats must not be
mixed. A corpus records its format in the manifest (`itemic_format`). Of rows that came without a manifest, the spelling
of the first ones is looked at; the number of codes a level cannot be seen there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from data_builders.mixture_scan import Part, load_line
from onereason.errors import ConfigError
from onereason.io import MANIFEST_NAME, read_json
from onereason.itemic.catalog import CATALOG_META
from onereason.itemic.format import ItemicFormat

FORMAT_KEY = "itemic_format"
"""Of the manifest of a corpus."""
LOOKED_AT = 500
"""Rows whose spelling is looked at where no format is recorded."""

_TOKEN = re.compile(r"<[a-z]+(?:_[a-z])?_[0-9]+>|<\|[a-z]+_(?:begin|end)\|>")
_NUMBER = re.compile(r"[0-9]+")


class PartFormat(NamedTuple):
    """How a corpus writes items.

    Attributes:
        name: of the corpus.
        format: that its manifest records, None where it records none.
        spelling: its tokens, numbers as `N`, sorted: all of the format, or those that were met.
    """

    name: str
    format: ItemicFormat | None
    spelling: Sequence[str]

    def describe(self) -> str:
        """e.g. `'onereason' (<s_a_N><s_b_N>, codes a level [64, 64], domains ad, video)`."""
        codes = "".join(token for token in self.spelling if "N" in token)
        if self.format is None:
            markers = ", ".join(token for token in self.spelling if "N" not in token)
            return f"an unrecorded one ({codes}{' with ' + markers if markers else ''})"
        domains = ", ".join(self.format.domains)
        return f"{self.format.name!r} ({codes}, codes a level {list(self.format.codes_per_level)}, domains {domains})"

    def agrees(self, other: PartFormat) -> bool:
        """Whether items of both can be told apart and read by one model; the name of a format plays no part."""
        if self.format is not None and other.format is not None:
            return _shape(self.format) == _shape(other.format)
        if self.format is not None:
            return set(other.spelling) <= set(self.spelling)
        if other.format is not None:
            return other.agrees(self)
        codes = [[token for token in part.spelling if "N" in token] for part in (self, other)]
        return codes[0] == codes[1]


def read_catalog_format(catalog: Path) -> dict[str, Any]:
    """The format of a catalog folder (or a model folder), as the manifest of a corpus records it."""
    return read_json(catalog / CATALOG_META, "catalog description")["format"]


def check_formats(parts: Sequence[Part]) -> ItemicFormat | None:
    """The format of corpora that are to be mixed; None where none records one.

    Raises:
        ConfigError: two of them write items in different formats.
        FormatError: a recorded format is malformed.
    """
    found = [known for part in parts if (known := read_part_format(part)) is not None]
    found.sort(key=lambda known: known.format is None)  # a recorded one says more
    for other in found[1:]:
        first = found[0]
        if not first.agrees(other):
            raise ConfigError(
                f"corpora {first.name!r} and {other.name!r} write items in different itemic formats: {first.name!r} in "
                f"{first.describe()}, {other.name!r} in {other.describe()}; build them with one catalog."
            )
    return found[0].format if found else None


def read_part_format(part: Part) -> PartFormat | None:
    """How a corpus writes items; None where its manifest does not say it, and its first rows hold none."""
    manifest = part.path.parent / MANIFEST_NAME
    if manifest.is_file():
        recorded = read_json(manifest, "manifest")
        recorded = recorded.get(FORMAT_KEY) if isinstance(recorded, dict) else None
        if recorded is not None:
            format = ItemicFormat.from_dict(recorded, str(manifest))
            return PartFormat(part.name, format, sorted({_NUMBER.sub("N", token) for token in format.tokens()}))
    met: set[str] = set()
    with part.path.open("rb") as lines:
        for line in islice(lines, LOOKED_AT):
            met |= _spelling_of(line)
    return PartFormat(part.name, None, sorted(met)) if any("N" in token for token in met) else None


def _spelling_of(line: bytes) -> set[str]:
    try:
        row = load_line(line)
    except ValueError:
        return set()
    if not isinstance(row, dict):
        return set()
    messages = row.get("messages")
    said = [m.get("content") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    texts = [text for text in (row.get("text"), *said) if isinstance(text, str)]
    return {_NUMBER.sub("N", token) for text in texts for token in _TOKEN.findall(text)}


def _shape(format: ItemicFormat) -> tuple[Any, ...]:
    """What the tokens of a format are, and how items are written with them."""
    markers = {domain: (marker.begin, marker.end) for domain, marker in format.domains.items()}
    return format.codes_per_level, format.code_token, markers, format.render_end
