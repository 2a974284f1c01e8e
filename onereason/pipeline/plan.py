"""The stages of a pipeline file once placeholders, domains and needs are resolved.

Everything that can be wrong with a file is said here, before anything runs.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onereason.config import check_seed, load_config
from onereason.errors import ConfigError
from onereason.pipeline.config import PipelineConfig, StageConfig

RECORDS, LOGS = ".pipeline", "logs"
REPORT_FILES = ("report.md", "report.html", "report", "results.json")
"""What the driver itself writes into the folder of a run, beside records and logs."""
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_EACH = ".*"


@dataclass(frozen=True)
class Stage:
    """A stage ready to run.

    Attributes:
        name: unique; `NAME.DOMAIN` where there is one a domain.
        base: the name in the file.
        domain: of `for_each`.
        command: its arguments.
        out: what it writes, and what is removed to run it anew.
        done: the path that tells that it is done.
        files: configuration files it reads; their content belongs to the command.
        needs: names of stages.
        report: its name in the report.
    """

    name: str
    base: str
    domain: str | None
    command: tuple[str, ...]
    out: Path
    done: Path
    files: tuple[Path, ...]
    needs: tuple[str, ...]
    report: str | None


@dataclass(frozen=True)
class Plan:
    """The stages of a run in an order in which they can run."""

    run: Path
    stages: tuple[Stage, ...]

    @property
    def records(self) -> Path:
        return self.run / RECORDS

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def select(self, names: Sequence[str], option: str) -> list[Stage]:
        """The stages called so, those of all domains where a name is a stage of several; in the plan's order."""
        chosen: set[str] = set()
        for name in names:
            found = [stage.name for stage in self.stages if name in (stage.name, stage.base)]
            if not found:
                known = list(dict.fromkeys(s.base for s in self.stages))
                raise ConfigError(f"{option} {name}: no such stage{_hint(name, known)}")
            chosen.update(found)
        return [stage for stage in self.stages if stage.name in chosen]

    def dependents(self, names: Sequence[str]) -> list[Stage]:
        """These stages and all that need them, directly or not; in the plan's order."""
        chosen = set(names)
        for stage in self.stages:
            if chosen & set(stage.needs):
                chosen.add(stage.name)
        return [stage for stage in self.stages if stage.name in chosen]


def load_plan(path: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Reads and checks a pipeline file; `ConfigError` says what is wrong with it."""
    config = load_config(PipelineConfig, path, overrides)
    try:
        return _resolve(config)
    except ConfigError as error:
        error.args = (f"{path}: {error}",)
        raise


def search_path() -> str:
    """Where commands are looked for: beside this Python first, so that an environment need not be activated."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _resolve(config: PipelineConfig) -> Plan:
    check_seed(config.seed)
    if not config.run or not config.stages:
        raise ConfigError("run and stages must not be empty.")
    run = Path(config.run)
    names = _Names(config)
    stages: list[Stage] = []
    before = None
    for stage in config.stages:
        for domain in names.instances(stage.name):
            stages.append(_resolve_stage(config, stage, domain, before, names))
        before = stage.name
    _check_outs(run, stages)
    return Plan(run, tuple(_in_order(stages)))


class _Names:
    """What placeholders and needs of a file may name."""

    def __init__(self, config: PipelineConfig):
        self.values: dict[str, Any] = {"run": config.run, "seed": config.seed, **config.vars}
        self.domains: dict[str, list[str]] = {}
        self.outs: dict[str, str] = {}
        taken = {"run", "seed", "out", "domain"}
        for name in config.vars:
            if name in taken or not _WORD.fullmatch(name):
                raise ConfigError(f"vars.{name}: choose another name (letters, digits, - and _; not {sorted(taken)}).")
        taken |= set(config.vars)
        for stage in config.stages:
            if stage.name in taken or not _WORD.fullmatch(stage.name):
                why = "is taken" if stage.name in taken else "must be made of letters, digits, - and _"
                raise ConfigError(f"stage name {stage.name!r} {why}; choose another.")
            taken.add(stage.name)
            self.domains[stage.name] = self._list_domains(stage)
        for stage in config.stages:  # outs name no other stage
            for domain in self.instances(stage.name):
                text = stage.out or ("{run}/" + stage.name + ("/{domain}" if domain else ""))
                self.outs[instance(stage.name, domain)] = self.fill(text, domain, f"stage {stage.name}: out")

    def _list_domains(self, stage: StageConfig) -> list[str]:
        found = stage.for_each
        if isinstance(found, str):
            if not isinstance(self.values.get(found), list):
                raise ConfigError(f"stage {stage.name}: for_each names {found!r}, which is no list in vars.")
            found = self.values[found]
        domains = [str(domain) for domain in found or ()]
        if found is not None and (not domains or len(set(domains)) < len(domains)):
            raise ConfigError(f"stage {stage.name}: for_each must list domains, each once; got {domains}.")
        if odd := next((domain for domain in domains if not _WORD.fullmatch(domain)), None):
            raise ConfigError(f"stage {stage.name}: for_each: {odd!r} must be made of letters, digits, - and _.")
        return domains

    def instances(self, name: str) -> Sequence[str | None]:
        """The domains of a stage; None alone for a stage without."""
        return self.domains[name] or (None,)

    def stages_called(self, name: str, domain: str | None) -> list[str]:
        """Instances that a need names: that of the same domain where there is one, else all."""
        if name in self.outs:
            return [name]
        if name not in self.domains:
            raise ConfigError(f"no stage is called {name!r}{_hint(name, [*self.domains, *self.outs])}")
        if domain in self.domains[name]:
            return [instance(name, domain)]
        return [instance(name, each) for each in self.domains[name]]

    def fill(
        self, text: str, domain: str | None, where: str, named: dict[str, None] | None = None, out: str = ""
    ) -> str:
        """`text` with its placeholders filled in.

        Args:
            named: takes the stages that are named; None where none may be.
            out: for `{out}`.
        """

        def replace(match: re.Match[str]) -> str:
            if match[0] in ("{{", "}}"):
                return match[0][0]
            name = match[1]
            if name is None:
                raise ConfigError(f"{where}: {text!r} holds a single {match[0]}; a brace itself is written twice.")
            if name == "out" and out:
                return out
            if name == "domain" and domain is not None:
                return domain
            if name in self.values:
                value = self.values[name]
                return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if named is not None:
                found = self._stage_at(name, domain, where)
                if found is not None:
                    named[found] = None
                    return self.outs[found]
            known = [*self.values, *(["domain"] if domain else []), *(["out"] if out else [])]
            known += [*self.outs] if named is not None else []
            raise ConfigError(f"{where}: {{{name}}} is not known{_hint(name, known)}")

        return _BRACES.sub(replace, text)

    def _stage_at(self, name: str, domain: str | None, where: str) -> str | None:
        if name in self.outs:
            return name
        if name not in self.domains:
            return None
        if domain in self.domains[name]:
            return instance(name, domain)
        one = instance(name, self.domains[name][0])
        raise ConfigError(f"{where}: {name} is one stage a domain; write {{{one}}}, or {{{name}{_EACH}}} for all.")

    def fill_each(self, text: str, domain: str | None, where: str, named: dict[str, None], out: str) -> Iterator[str]:
        """`fill`; a text with `{STAGE.*}` once for every domain, one that is a `{LIST}` alone once for every item."""
        if isinstance(values := self.values.get(text[1:-1]) if _BRACES.fullmatch(text) else None, list):
            for value in values:
                yield self.fill(str(value), domain, where, named, out)
            return
        each = [m[1].removesuffix(_EACH) for m in _BRACES.finditer(text) if m[1] and m[1].endswith(_EACH)]
        for name in each:
            if not self.domains.get(name):
                many = [known for known, domains in self.domains.items() if domains]
                raise ConfigError(f"{where}: {{{name}{_EACH}}} names no stage with for_each{_hint(name, many)}")
        if not each:
            yield self.fill(text, domain, where, named, out)
            return
        for one in self.domains[each[0]]:
            yield self.fill(text.replace(_EACH + "}", "}"), one, where, named, out)


def instance(name: str, domain: str | None) -> str:
    """`rl_domain`, `video` -> `rl_domain.video`."""
    return name if domain is None else f"{name}.{domain}"


def _resolve_stage(
    config: PipelineConfig, stage: StageConfig, domain: str | None, before: str | None, names: _Names
) -> Stage:
    name = instance(stage.name, domain)
    where, out = f"stage {name}", names.outs[name]
    named: dict[str, None] = {}
    files: list[Path] = []
    if (stage.command is None) == (stage.recipe is None):
        raise ConfigError(f"{where}: give a command or a recipe, one of them.")
    if stage.command is not None:
        if stage.config or stage.set or stage.launch:
            raise ConfigError(f"{where}: config, set and launch belong to a recipe.")
        words = _split(stage.command, where)
        command = [part for word in words for part in names.fill_each(word, domain, where, named, out)]
        if shutil.which(command[0], path=search_path()) is None:
            raise ConfigError(f"{where}: there is no program {command[0]!r}; install it, or write its whole path.")
    else:
        launch = names.fill(stage.launch or config.launch, domain, where)
        command = ["accelerate", "launch", "--config_file", launch, "-m", str(stage.recipe)]
        files = [Path(launch)]
        if stage.config is not None:
            files.append(Path(names.fill(stage.config, domain, where)))
            command += ["--config", str(files[-1])]
        for file in files:
            if not file.is_file():
                raise ConfigError(f"{where}: configuration file not found: {file} (looked for from {Path.cwd()}).")
        if "out" in stage.set:
            raise ConfigError(f"{where}: out belongs beside recipe, not under set.")
        command.append(f"out={out}")
        for key, value in stage.set.items():
            text = f"{key}={value if isinstance(value, str) else _escape(value)}"
            command += names.fill_each(text, domain, where, named, out)
    needs = dict(named)
    try:
        for need in stage.needs or ():
            needs |= dict.fromkeys(names.stages_called(need, domain))
        if stage.needs is None and not named and before is not None:
            needs |= dict.fromkeys(names.stages_called(before, domain))
    except ConfigError as error:
        raise ConfigError(f"{where}: needs: {error}") from error
    done = stage.done if stage.done is not None else "model" if stage.recipe is not None else "."
    return Stage(
        name,
        stage.name,
        domain,
        tuple(command),
        Path(out),
        Path(out) / names.fill(done, domain, f"{where}: done"),
        tuple(files),
        tuple(needs),
        stage.report,
    )


def _split(command: str | Sequence[str], where: str) -> list[str]:
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise ConfigError(f"{where}: command cannot be read: {error}.") from error
    if not words:
        raise ConfigError(f"{where}: command is empty.")
    return words


def _escape(value: Any) -> str:
    """A value as YAML on one line (JSON); placeholders in its texts stay, its own braces are doubled."""
    if isinstance(value, Mapping):
        return "{{" + ", ".join(f"{json.dumps(str(k))}: {_escape(v)}" for k, v in value.items()) + "}}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_escape, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}."


def _check_outs(run: Path, stages: Sequence[Stage]) -> None:
    """Every out lies inside the run, and none inside another: what `--redo` removes is one stage's own."""
    root = Path(os.path.abspath(run))
    reserved = {root / name for name in (RECORDS, LOGS, *REPORT_FILES)}
    places: dict[Path, str] = {}
    for stage in stages:
        place = Path(os.path.abspath(stage.out))
        if root not in place.parents or reserved & {place, *place.parents}:
            ours = ", ".join((RECORDS, LOGS, *REPORT_FILES))
            raise ConfigError(f"stage {stage.name}: out {stage.out} must lie inside {run}, and not in {ours}.")
        if place in places:
            raise ConfigError(f"stages {places[place]} and {stage.name} have one out, {stage.out}; give each its own.")
        places[place] = stage.name
    for place, name in places.items():
        if outer := next((places[parent] for parent in place.parents if parent in places), None):
            raise ConfigError(f"the out of stage {name} lies inside that of {outer}; put it beside it.")


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    """The order of the file, but for stages that have to wait for later ones."""
    by_name = {stage.name: stage for stage in stages}
    placed: dict[str, Stage] = {}

    def place(stage: Stage, above: tuple[str, ...]) -> None:
        if stage.name in above:
            circle = [*above[above.index(stage.name) :], stage.name]
            raise ConfigError(f"stages need each other in a circle: {' -> '.join(circle)}.")
        for need in stage.needs:
            if need not in placed:
                place(by_name[need], (*above, stage.name))
        placed.setdefault(stage.name, stage)

    for stage in stages:
        place(stage, ())
    return list(placed.values())
