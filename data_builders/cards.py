"""What a corpus says of itself: counts, the manifest's settings and the data card."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from onereason.data.prompt_sets import language_name
from onereason.data.prompts import describe_prompts
from onereason.errors import DataError

Row = dict[str, Any]

ROWS_FILE, REJECTED_FILE, CARD_FILE = "rows.jsonl", "rejected.jsonl", "CARD.md"
COUNTED = ("mode", "task", "domain", "teacher")
"""Fields of a row whose values are counted."""
REJECTED_EXAMPLES = 3
"""Of each reason, in manifest and card."""
MAX_DETAIL = 300
MAX_SHOWN = 3000
"""Characters of an example's detail, and of a row in the card."""


@dataclass
class Tally:
    """Counts of a corpus, or of a part of it; the parts are merged in the order of their rows.

    Attributes:
        counts: `rows`, and the rows of each mode, task, domain and teacher, as `mode_think`, `task_persona`, ...; where
            a teacher judges, the verdicts too, `judged_by_teacher` and `judged_by_rules`; and what a source counts.
        rejected: reason -> how many.
        rejected_examples: reason -> the first few, as `{"id": ..., "detail": ...}`.
        first_rows: the first row of each task.
    """

    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    first_rows: dict[str, Row] = field(default_factory=dict)

    def add(self, rows: Sequence[Row]) -> None:
        self.counts["rows"] += len(rows)
        for name in COUNTED:
            for value, count in Counter([row.get(name) for row in rows]).items():
                if value is not None:
                    self.counts[f"{name}_{value}"] += count
        for row in rows:
            if row["task"] not in self.first_rows:
                self.first_rows[row["task"]] = row

    def reject(self, rejects: Iterable[tuple[str, str, str]]) -> None:
        """Counts `(id, reason, detail)` of what gave no row."""
        for row_id, reason, detail in rejects:
            self.rejected[reason] += 1
            examples = self.rejected_examples.setdefault(reason, [])
            if len(examples) < REJECTED_EXAMPLES:
                examples.append({"id": row_id, "detail": detail[:MAX_DETAIL]})

    def merge(self, later: Tally) -> None:
        """Adds the counts of the rows that follow."""
        self.counts.update(later.counts)
        self.rejected.update(later.rejected)
        for reason, examples in later.rejected_examples.items():
            ours = self.rejected_examples.setdefault(reason, [])
            ours.extend(examples[: REJECTED_EXAMPLES - len(ours)])
        for task, row in later.first_rows.items():
            self.first_rows.setdefault(task, row)

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        return cls(
            Counter(value["counts"]), Counter(value["rejected"]), value["rejected_examples"], value["first_rows"]
        )

    def to_manifest(self) -> dict[str, Any]:
        """`counts`, `rejected` and `rejected_examples`, in an order of their own."""
        groups = {name: place for place, name in enumerate(("rows", *COUNTED))}
        names = sorted(self.counts, key=lambda name: (groups.get(name.partition("_")[0], len(groups)), name))
        reasons = sorted(self.rejected, key=lambda reason: (-self.rejected[reason], reason))
        manifest: dict[str, Any] = {
            "counts": {name: self.counts[name] for name in names},
            "rejected": {reason: self.rejected[reason] for reason in reasons},
        }
        if reasons:
            manifest["rejected_examples"] = {reason: self.rejected_examples[reason] for reason in reasons}
        return manifest


def corpus_config(
    args: argparse.Namespace, options: Sequence[str], extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The settings a manifest records; files by their names only, so that no path of this machine is in it."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return value.name
        return [plain(part) for part in value] if isinstance(value, list | tuple) else value

    config = {name: getattr(args, name) for name in options} | dict(extra or {})
    return {name: plain(value) for name, value in config.items()}


def prompt_settings(language: str, names: Sequence[str]) -> dict[str, str]:
    """What a manifest records of a corpus' wording: its language (a folder by its name) and the prompt sets' versions.

    Raises:
        ConfigError: a prompt set is not there.
    """
    return {"language": language_name(language), "prompt_version": describe_prompts(names, language)}


def describe_counts(tally: Tally) -> str:
    """e.g. `1200 rows, rejected {'empty_caption': 3}`."""
    rejected = tally.to_manifest()["rejected"]
    return f"{tally.counts['rows']} rows" + (f", rejected {rejected}" if rejected else "")


def describe_judging(tally: Tally) -> str:
    """How many traces rules judged because the judge's verdicts cannot be read, '' where there is none."""
    by_rules, by_teacher = tally.counts["judged_by_rules"], tally.counts["judged_by_teacher"]
    if not by_rules:
        return ""
    return (
        f"rules judged {by_rules} of {by_rules + by_teacher} traces, because the judge's verdicts cannot be read "
        "(judged_by_rules in manifest.json); --judge-fallback quarantine leaves such traces out"
    )


def no_row_left(out: Path, rejected: Mapping[str, int]) -> DataError:
    return DataError(f"no row is left for {out}: rejected {dict(rejected) or 'nothing, the input is empty'}.")


def render_card(title: str, description: str, manifest: Mapping[str, Any], *rows: Row) -> str:
    """The data card, Markdown.

    Args:
        title, description: what the corpus is.
        manifest: of the corpus; `rejected_examples` may be missing.
        rows: what it shows of the corpus.
    """

    def table(values: Mapping[str, Any], empty: str) -> str:
        lines = [f"| {name} | {value} |" for name, value in values.items()]
        return "\n".join(["| | |", "|---|---|", *lines]) if lines else empty

    def block(row: Row) -> str:
        shown = json.dumps(row, ensure_ascii=False, indent=2)
        return f"```json\n{shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + ' ...'}\n```"

    def told(one: Mapping[str, str]) -> str:
        return " ".join(f"{one['id']} ({one['detail']})".split()) if one["detail"] else one["id"]

    examples = [
        f"- {reason}: " + "; ".join(map(told, found)) for reason, found in manifest.get("rejected_examples", {}).items()
    ]
    parts = [
        f"# {title}",
        description.strip(),
        "## Counts\n\n" + table(manifest["counts"], "none"),
        "## Rejected\n\n" + table(manifest["rejected"], "Nothing was rejected."),
        *(["First of each reason:\n\n" + "\n".join(examples)] if examples else []),
        "## Settings\n\n" + table({**manifest["config"], "seed": manifest["seed"]}, "none"),
        "## Inputs (SHA-256)\n\n" + table(manifest["inputs"], "None: the rows are generated from the seed."),
        "The licence of the inputs holds for these rows.",
        "## First row" if len(rows) == 1 else "## First row of each task",
        *map(block, rows),
    ]
    return "\n\n".join(parts) + "\n"
