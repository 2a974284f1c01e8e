"""Where a model comes from: the manifests of the stages that made it, and of the data they read.

A manifest names its inputs by hash. A folder that is still there and still has that hash is what the stage read, and
its own manifest is believed; any other is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onereason.errors import OnereasonError
from onereason.io import MANIFEST_NAME, hash_file, read_json
from onereason.model.folder import weight_files

EXTENSION, AVERAGE, EXPORT = "model", "average", "export"
"""Kinds of manifests that do not name one folder they started from."""
DATA_FILES = ("rows.jsonl", "interactions.parquet")
"""The file that stands for a corpus, and for a dataset."""


@dataclass(frozen=True)
class DataSource:
    """Data that a stage read.

    Attributes:
        name: of the corpus, or `data`.
        sha256: of its file, as the stage recorded it; None where that cannot be told.
        manifest: of its folder; None where it is not known.
        unknown: why not; empty where it is.
    """

    name: str
    sha256: str | None
    manifest: Mapping[str, Any] | None
    unknown: str


@dataclass(frozen=True)
class Stage:
    """A step that made a model folder: its manifest, without the machine's paths, and the data it read."""

    manifest: Mapping[str, Any]
    data: tuple[DataSource, ...]

    @property
    def kind(self) -> str:
        return str(self.manifest.get("kind", "unknown"))

    def to_dict(self) -> dict[str, Any]:
        return {"manifest": dict(self.manifest), "data": [vars(source) for source in self.data]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Stage:
        return cls(value["manifest"], tuple(DataSource(**source) for source in value["data"]))


@dataclass(frozen=True)
class Lineage:
    """The stages that are known, the first one first, and why none before it is; empty where it is the first."""

    stages: tuple[Stage, ...]
    unknown: str

    def to_dict(self) -> dict[str, Any]:
        return {"stages": [stage.to_dict() for stage in self.stages], "unknown": self.unknown}


def read_lineage(folder: str | Path, started_from: str | Path | None = None) -> Lineage:
    """Follows manifests from a model folder (or an adapter) back to the base it was made from.

    Args:
        started_from: the folder the last stage started from, where it is known better than the manifest knows it.
    """
    manifest = _read_manifest(Path(folder))
    if manifest is None:
        return Lineage((), f"{_tail(Path(folder))} holds no {MANIFEST_NAME} of a stage")
    if manifest["kind"] == EXPORT:
        return _exported_lineage(manifest)
    stage = Stage(_without_places(manifest), tuple(_read_data(manifest)))
    if manifest["kind"] == EXTENSION:
        return Lineage((stage,), "")
    before = _lineage_before(manifest, started_from)
    return Lineage((*before.stages, stage), before.unknown)


def _exported_lineage(manifest: Mapping[str, Any]) -> Lineage:
    try:
        recorded = manifest["lineage"]
        return Lineage(tuple(Stage.from_dict(value) for value in recorded["stages"]), str(recorded["unknown"]))
    except (KeyError, TypeError):
        return Lineage((), f"the {MANIFEST_NAME} of the exported folder does not tell what it was made from")


def _lineage_before(manifest: Mapping[str, Any], started_from: str | Path | None) -> Lineage:
    """The lineage of the folder that a stage started from."""
    if manifest["kind"] == AVERAGE:
        return Lineage((), "of averaged models, names, weights and hashes are recorded, and not their stages")
    named = started_from or manifest["config"].get("model")
    if not isinstance(named, str | Path):
        return Lineage((), f"the manifest of stage {manifest['kind']} does not name the folder it started from")
    what = f"{_tail(Path(named))}, which stage {manifest['kind']} started from,"
    try:
        hashes = {hash_file(file) for file in weight_files(named)}
    except OnereasonError:
        return Lineage((), f"{what} is not at its place any more")
    if not hashes <= set(manifest["inputs"].values()):
        return Lineage((), f"{what} holds other weights now")
    return read_lineage(named)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = read_json(folder / MANIFEST_NAME, "manifest")
    except OnereasonError:
        return None
    whole = isinstance(manifest, dict) and {"kind", "inputs", "config"} <= set(manifest)
    return manifest if whole and all(isinstance(manifest[key], dict) for key in ("inputs", "config")) else None


def _read_data(manifest: Mapping[str, Any]) -> list[DataSource]:
    """The corpora and the dataset that a stage's configuration names."""
    data = manifest["config"].get("data")
    if isinstance(data, str) and data:
        return [_read_source("data", data, manifest["inputs"])]
    if isinstance(data, Mapping) and isinstance(data.get("corpora"), Mapping):
        shares = data.get("shares") or {}
        return [
            _read_source(name, path, manifest["inputs"]) for name, path in data["corpora"].items() if shares.get(name)
        ]
    return []


def _read_source(name: str, folder: str, inputs: Mapping[str, str]) -> DataSource:
    for file in (Path(folder) / file for file in DATA_FILES):
        recorded = next((digest for tail, digest in inputs.items() if f"/{file.as_posix()}".endswith(f"/{tail}")), None)
        if recorded is None:
            continue
        if not file.is_file():
            return DataSource(name, recorded, None, "its folder is not at its place any more")
        if hash_file(file) != recorded:
            return DataSource(name, recorded, None, "its folder holds another file now")
        manifest = _read_manifest(file.parent)
        if manifest is None:
            return DataSource(name, recorded, None, f"its folder holds no {MANIFEST_NAME}")
        return DataSource(name, recorded, _without_places(manifest), "")
    return DataSource(name, None, None, "its hash is not recorded")


def _without_places(value: Any) -> Any:
    """Settings in which absolute paths are cut to what they are known by: a lineage is handed on."""
    if isinstance(value, Mapping):
        return {str(key): _without_places(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(part) for part in value]
    return _tail(Path(value)) if isinstance(value, str) and value.startswith("/") else value


def _tail(path: Path) -> str:
    """The last two parts of a path: enough to know it by, and nothing of the machine."""
    return "/".join(path.parts[-2:])
