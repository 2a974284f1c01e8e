"""Configuration: YAML and overrides into nested dataclasses; unknown keys and wrong types are refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from onereason.config import build_config, load_config, to_dict
from onereason.errors import ConfigError


@dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate must be positive, got {self.learning_rate}.")


@dataclass(frozen=True)
class Source:
    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Run:
    name: str
    optimizer: Optimizer = field(default_factory=Optimizer)
    second: Optimizer | None = None
    sources: list[Source] = field(default_factory=list)
    named: dict[str, Source] = field(default_factory=dict)
    mode: Literal["fast", "exact"] = "fast"
    steps: int | None = None


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_yaml_then_overrides(tmp_path):
    path = write(
        tmp_path,
        "name: a\noptimizer: {learning_rate: 1e-3}\nsecond:\nsources: [{path: x, weight: 2}]\n"
        "named: {left: {path: y}}\n",
    )
    config = load_config(
        Run, path, ["optimizer.learning_rate=5e-4", "steps=10", "--mode=exact", "second.betas=[0.1, 0.2]"]
    )
    assert config == Run(
        name="a",
        optimizer=Optimizer(5e-4),
        second=Optimizer(betas=(0.1, 0.2)),
        sources=[Source(Path("x"), 2.0)],
        named={"left": Source(Path("y"))},
        mode="exact",
        steps=10,
    )
    assert to_dict(config)["optimizer"] == {"learning_rate": 5e-4, "betas": (0.9, 0.999)}


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "+1e-3", "1.0e-3", "0.001"])
def test_numbers_with_exponents_are_numbers(tmp_path, number):
    assert load_config(Optimizer, write(tmp_path, f"learning_rate: {number}")).learning_rate == 0.001


def test_groups_take_over_keys_of_others(tmp_path):
    path = write(
        tmp_path,
        "name: a\noptimizer: &first {learning_rate: 3, betas: [0.5, 0.6]}\nsecond: {<<: *first, learning_rate: 7}\n",
    )
    config = load_config(Run, path)
    assert config.second == Optimizer(7.0, (0.5, 0.6)) and config.optimizer == Optimizer(3.0, (0.5, 0.6))
    with pytest.raises(ConfigError, match="key 'learning_rate' stands twice"):
        text = path.read_text().replace("*first, learning_rate: 7", "*first, learning_rate: 7, learning_rate: 8")
        load_config(Run, write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: a", r"run.yaml: unknown key nam; did you mean name\?"),
        ("name: a\noptimizer: {lr: 1}", r"unknown key optimizer.lr; known keys are learning_rate, betas"),
        ("name: a\nsecond: {learning_rat: 1}", r"unknown key second.learning_rat; did you mean second.learning_rate\?"),
        ("name: a\nsources: [{path: x}, {path: y, wait: 1}]", r"unknown key sources.1.wait"),
        (
            "name: a\nnamed: {left: {path: y, weigh: 1}}",
            r"unknown key named.left.weigh; did you mean named.left.weight",
        ),
        ("optimizer: {}", r"run.yaml: name: Field required\.$"),
        ("name: a\nsteps: many", r"run.yaml: steps: .*got 'many'"),
        ("name: a\nmode: slow", r"mode: Input should be 'fast' or 'exact', got 'slow'"),
        ("name: a\noptimizer: {learning_rate: 0}", r"optimizer: learning_rate must be positive, got 0.0\.$"),
        ("name: a\nname: b", "key 'name' stands twice"),
        ("name: [", "is not valid YAML"),
        ("- a", "expected keys and values at the top level, got list"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(Run, write(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "is not of the form key=value"),
        ("=3", "is not of the form key=value"),
        ("name.first=3", "'name' is a single value, not a group of keys"),
        ("steps=[", "the value is not valid YAML"),
        ("optimiser.betas=1", r"unknown key optimiser; did you mean optimizer\?"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(Run, write(tmp_path, "name: a"), [override])


def test_a_missing_file_and_a_missing_key(tmp_path):
    with pytest.raises(ConfigError, match="configuration file not found"):
        load_config(Run, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match=r"--policy: name: Field required"):
        build_config(Run, {}, "--policy")
