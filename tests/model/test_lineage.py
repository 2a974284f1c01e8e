"""Lineages: followed by hash, and no further."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from onereason.model.lineage import Lineage, Stage, read_lineage


def write_stage(folder: Path, kind: str, number: int, inputs: dict[str, Path], **config) -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((2,), float(number))}, folder / "model.safetensors")
    write_manifest(folder, kind, inputs, **config)
    return folder


def write_manifest(folder: Path, kind: str, inputs: dict[str, Path], **config) -> None:
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in inputs.items()}
    (folder / "manifest.json").write_text(json.dumps({"kind": kind, "inputs": hashes, "config": config}))


@pytest.fixture
def chain(tmp_path) -> list[Path]:
    """extension -> alignment on two corpora (one without a share) -> reinforcement on a dataset."""
    for name in ("persona", "caption", "idle"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(f'{{"text": "{name}"}}\n')
        write_manifest(tmp_path / name, "corpus", {}, builder=name)
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "interactions.parquet").write_bytes(b"table")
    base = write_stage(tmp_path / "base", "model", 0, {}, base="tiny")
    inputs = {"model.safetensors": base / "model.safetensors"}
    inputs |= {f"{name}/rows.jsonl": tmp_path / name / "rows.jsonl" for name in ("persona", "caption")}
    corpora = {name: str(tmp_path / name) for name in ("persona", "caption", "idle")}
    data = {"corpora": corpora, "shares": {"persona": 1.0, "caption": 2.0, "idle": 0}}
    align = write_stage(tmp_path / "align" / "model", "align", 1, inputs, model=str(base), data=data)
    inputs = {
        "model.safetensors": align / "model.safetensors",
        "interactions.parquet": tmp_path / "world" / "interactions.parquet",
    }
    rl = write_stage(tmp_path / "rl" / "model", "rl", 2, inputs, model=str(align), data=str(tmp_path / "world"))
    return [base, align, rl]


def kinds(lineage: Lineage) -> list[str]:
    return [stage.kind for stage in lineage.stages]


def test_a_chain_is_followed_to_the_base(chain, tmp_path):
    found = read_lineage(chain[-1])
    assert (kinds(found), found.unknown) == (["model", "align", "rl"], "")
    assert [source.name for source in found.stages[1].data] == ["persona", "caption"]  # `idle` had no share
    for source in found.stages[1].data:
        file = tmp_path / source.name / "rows.jsonl"
        assert source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert source.manifest is not None and source.manifest["config"] == {"builder": source.name}
    (world,) = found.stages[2].data
    assert world.sha256 == hashlib.sha256(b"table").hexdigest()
    assert (world.manifest, world.unknown) == (None, "its folder holds no manifest.json")


def test_paths_of_the_machine_are_cut(chain, tmp_path):
    found = read_lineage(chain[-1])
    assert found.stages[2].manifest["config"]["model"] == "align/model"
    assert found.stages[1].manifest["config"]["data"]["corpora"]["persona"] == f"{tmp_path.name}/persona"
    assert str(tmp_path) not in json.dumps(found.to_dict())


def test_what_has_changed_or_gone_is_not_believed(chain, tmp_path):
    base, align, rl = chain
    (tmp_path / "persona" / "rows.jsonl").write_text("other rows\n")
    (tmp_path / "caption").rename(tmp_path / "elsewhere")
    recorded = json.loads((align / "manifest.json").read_text())["inputs"]
    persona, caption = read_lineage(rl).stages[1].data
    assert persona.sha256 == recorded["persona/rows.jsonl"] and persona.manifest is None
    assert persona.unknown == "its folder holds another file now"
    assert caption.sha256 == recorded["caption/rows.jsonl"]
    assert caption.unknown == "its folder is not at its place any more"

    save_file({"weight": torch.ones(3)}, base / "model.safetensors")
    found = read_lineage(rl)
    assert kinds(found) == ["align", "rl"]
    assert found.unknown == f"{tmp_path.name}/base, which stage align started from, holds other weights now"
    align.rename(tmp_path / "moved")
    found = read_lineage(rl)
    assert (kinds(found), found.unknown) == (
        ["rl"],
        "align/model, which stage rl started from, is not at its place any more",
    )
    assert kinds(read_lineage(rl, started_from=tmp_path / "moved")) == ["align", "rl"]


def test_ends_that_are_no_base(chain, tmp_path):
    base, _, rl = chain
    average = write_stage(tmp_path / "average", "average", 3, {}, weights={"a": 0.5, "b": 0.5})
    assert read_lineage(average).unknown.startswith("of averaged models, names, weights and hashes are recorded")
    assert kinds(read_lineage(average)) == ["average"]
    nameless = write_stage(tmp_path / "nameless", "sft", 4, {})
    assert read_lineage(nameless).unknown == "the manifest of stage sft does not name the folder it started from"
    (base / "manifest.json").unlink()
    found = read_lineage(rl)
    assert (kinds(found), found.unknown) == (
        ["align", "rl"],
        f"{tmp_path.name}/base holds no manifest.json of a stage",
    )
    assert read_lineage(tmp_path / "nothing") == Lineage(
        (), f"{tmp_path.name}/nothing holds no manifest.json of a stage"
    )


def test_an_exported_folder_carries_its_lineage(chain, tmp_path):
    before = read_lineage(chain[-1])
    folder = write_stage(tmp_path / "export", "export", 5, {}, dtype="float32")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"lineage": before.to_dict()}))
    for stage in chain:
        (stage / "manifest.json").unlink()
    again = read_lineage(folder)
    assert again.unknown == "" and again.stages == before.stages
    assert Stage.from_dict(json.loads(json.dumps(before.stages[1].to_dict()))) == before.stages[1]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert (
        read_lineage(folder).unknown == "the manifest.json of the exported folder does not tell what it was made from"
    )
