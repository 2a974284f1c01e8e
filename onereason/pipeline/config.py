"""A pipeline file as it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StageConfig:
    """One stage: a command, or a recipe that `accelerate launch` runs.

    Texts may hold `{run}`, `{seed}`, any of `vars`, `{out}` (this stage's), `{STAGE}` (that stage's `out`) and, with
    `for_each`, `{domain}`. An argument with `{STAGE.*}` is repeated for every domain of that stage, and `{domain}` in
    it is that domain. An argument that is a list of `vars` alone becomes the list's items, each filled in. A brace
    itself is written twice.
    """

    name: str
    """Letters, digits, `-` and `_`."""
    command: str | Sequence[str] | None = None
    """What would be typed, as a text or as a list of arguments. It runs without a shell."""
    recipe: str | None = None
    """Module of a recipe in place of a command, e.g. `recipes.sft`; its `out` is set to this stage's."""
    config: str | None = None
    """The recipe's configuration file; a change of its content counts as a change of the command."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of the recipe's configuration, e.g. `training.learning_rate: 1e-4`."""
    launch: str | None = None
    """Launch configuration of this recipe, in place of the pipeline's."""
    out: str | None = None
    """File or folder the stage writes, inside `run`; default `{run}/NAME` or `{run}/NAME/{domain}`."""
    done: str | None = None
    """File or folder inside `out` that appears when all is written; default `model` for a recipe, else `out` itself."""
    needs: Sequence[str] | None = None
    """Stages that have to be done before, beside those that the command names. Default: those that the command names,
    or where it names none the stage before."""
    for_each: str | Sequence[str] | None = None
    """Domains, or the name of a list in `vars`: one stage a domain, named `NAME.DOMAIN`."""
    report: str | None = None
    """Name in the report: of what an evaluation (`done` is its results file) evaluates, or of a run that is trained,
    whose curves are shown."""


@dataclass(frozen=True)
class PipelineConfig:
    """A pipeline file."""

    run: str
    """Folder that everything is written into."""
    stages: Sequence[StageConfig]
    """In the order in which they run, as far as their needs allow."""
    seed: int = 0
    """For `{seed}`."""
    vars: Mapping[str, Any] = field(default_factory=dict)
    """Values for placeholders; the command line changes them as `vars.NAME=VALUE`."""
    launch: str = "recipes/accelerate_configs/single.yaml"
    """Launch configuration of the recipes."""
