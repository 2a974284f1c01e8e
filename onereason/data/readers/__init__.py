"""Readers: one file a source format. Each has `read(paths, **options) -> RawTables`; `import_dataset` validates them.

A reader adds no rule of its own about what is kept: it hands over everything it finds, and `onereason.data.validate`
counts, refuses, drops or fixes. Importing this package loads no reader and no Polars.

Corpora larger than memory (`CORPORA`) have a `LAYOUT` instead, which `onereason.data.readers.streaming` joins on disk.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onereason.errors import ConfigError

if TYPE_CHECKING:
    from onereason.data.raw import RawTables
    from onereason.data.readers.streaming.layout import Layout
    from onereason.data.schema import Dataset
    from onereason.data.validate import Policy


@dataclass(frozen=True)
class ReaderSpec:
    """A source format the toolkit reads."""

    module: str
    """Module that holds `read`; it is imported when the reader is used."""
    help: str
    """One line: what the format is."""
    expects: str
    """The files expected at the path."""
    options: tuple[str, ...] = ("domain",)
    """Keyword arguments that `read` takes besides the paths."""

    @property
    def function(self) -> Callable[..., RawTables]:
        """`read(paths, **options) -> RawTables`."""
        return importlib.import_module(self.module).read


READERS: dict[str, ReaderSpec] = {
    "beauty": ReaderSpec(
        "onereason.data.readers.beauty",
        "Amazon Beauty as one object an item and one item list a user",
        "a folder with items.jsonl and interactions.jsonl",
    ),
    "amazon2014": ReaderSpec(
        "onereason.data.readers.amazon2014",
        "raw Amazon 2014 reviews and metadata, plain or gz, filtered to a k-core",
        "a folder with reviews_*.json[.gz] and meta_*.json[.gz], or these two files",
        ("domain", "k_core"),
    ),
    "onerec_think": ReaderSpec(
        "onereason.data.readers.onerec_think",
        "OneRec-Think's sequence text, one 'user item item ...' a line; items are known by id only",
        "the text file, e.g. sequential_data_processed.txt",
    ),
    "minionerec": ReaderSpec(
        "onereason.data.readers.minionerec",
        "MiniOneRec / LC-Rec / RecBole: .inter and .item.json (semantic ids stay in .index.json for `tokenize`)",
        "a folder with *.inter (or *.inter.json) and *.item.json, or these files",
    ),
    "table": ReaderSpec(
        "onereason.data.readers.table",
        "any CSV, TSV or Parquet by a column map",
        "one interactions file; the items' own file in --items",
        ("domain", "columns", "items", "item_columns", "time_unit"),
    ),
}
"""Reader name -> how to use it."""


@dataclass(frozen=True)
class CorpusSpec:
    """A public corpus that is imported out of core, together with its ready semantic ids."""

    module: str
    """Module that holds `LAYOUT`; it is imported when the corpus is read."""
    help: str
    """One line: what the corpus is."""
    expects: str
    """The tables expected at the path."""

    @property
    def layout(self) -> Layout:
        """What `onereason.data.readers.streaming.importer.import_corpus` takes."""
        return importlib.import_module(self.module).LAYOUT


CORPORA: dict[str, CorpusSpec] = {
    "explorer": CorpusSpec(
        "onereason.data.readers.explorer",
        "the OneReason Explorer tables, with their semantic ids (needs --catalog-out)",
        "a folder with OneReason_UserProfile, _Pid2Sid, _Pid2Caption, _Pid2Tag (.parquet, -*.parquet or folders)",
    ),
    "recif": CorpusSpec(
        "onereason.data.readers.recif",
        "OpenOneRec's RecIF release, with its semantic ids (needs --catalog-out)",
        "a folder with onerec_bench_release, video_ad_pid2sid, goods_pid2sid, pid2caption (.parquet)",
    ),
}
"""Corpus name -> how to use it."""


def import_dataset(
    reader: str, paths: str | Path | Sequence[str | Path], policy: Policy | None = None, **options: Any
) -> Dataset:
    """Reads a source and validates it.

    Args:
        reader: a name in `READERS`.
        paths: the file, folder or files the reader expects.
        policy: what happens to rows that break the rules; the defaults when None.
        options: the reader's own; those that are None take its defaults.

    Raises:
        ConfigError: an unknown reader, or an option the reader does not have.
        DataError: a missing or malformed file, or data the policy refuses.
    """
    from onereason.data.validate import validate

    if reader in CORPORA:
        raise ConfigError(
            f"reader {reader!r} writes to disk, with a catalog; call onereason.data.readers.streaming.importer."
            "import_corpus, or `onereason data import`."
        )
    if reader not in READERS:
        raise ConfigError(f"reader {reader!r} is not known; use one of {', '.join(READERS)}.")
    spec = READERS[reader]
    options = {name: value for name, value in options.items() if value is not None}
    for name in options:
        if name not in spec.options:
            raise ConfigError(f"reader {reader!r} has no option {name!r}; it has {', '.join(spec.options)}.")
    paths = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
    raw = spec.function(paths, **options)
    described = {name: Path(value).name if name == "items" else value for name, value in options.items()}
    return validate(
        raw.items,
        raw.interactions,
        policy,
        f"{reader} ({', '.join(map(str, raw.inputs))})",
        inputs=raw.inputs,
        config={"reader": reader, **described},
        found=raw.found,
        rejected=raw.rejected,
    )
