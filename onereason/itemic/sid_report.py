"""What a set of semantic ids is worth: residual error, use of the codes, entropy, collisions; table, JSON and plot.

Notation: `N` items, `L` levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onereason.io import atomic_file, write_json
from onereason.itemic.collisions import bucket_sizes, domain_groups
from onereason.itemic.format import ItemicFormat, level_letter

if TYPE_CHECKING:
    from rich.table import Table

    from onereason.itemic.tokenizer import ItemicTokenizer, TokenizedItems

REPORT_FILE = "report.json"
PLOT_FILE = "report.png"


def compute_level_use(codes: np.ndarray, codes_per_level: Sequence[int]) -> list[dict[str, Any]]:
    """How each level of `codes` [N, L] uses its codebook.

    `utilisation` is the share of the level's codes that some item bears; `entropy_bits` the Shannon entropy of the
    code of a random item; `entropy_normalised` divides it by log2 of the codebook size (1 means all codes equally
    often; a level of one code counts as 1).
    """
    levels = []
    for level, size in enumerate(codes_per_level):
        counts = np.bincount(codes[:, level], minlength=size)
        shares = counts[counts > 0] / len(codes)
        entropy = max(0.0, float(-(shares * np.log2(shares)).sum()))
        levels.append(
            {
                "level": level_letter(level),
                "codes": int(size),
                "used": len(shares),
                "utilisation": len(shares) / size,
                "entropy_bits": entropy,
                "entropy_normalised": entropy / float(np.log2(size)) if size > 1 else 1.0,
            }
        )
    return levels


def compute_collisions(codes: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Counts over items `codes` [N, L] that can collide inside a group `[N]`; `buckets` maps size -> number of sids."""
    sizes = bucket_sizes(codes, groups)
    values, counts = np.unique(sizes, return_counts=True)
    shared = int(sizes[sizes > 1].sum())
    return {
        "num_items": len(codes),
        "num_sids": len(sizes),
        "num_items_in_collision": shared,
        "share_in_collision": shared / len(codes),
        "largest_bucket": int(sizes[0]),
        "buckets": {str(v): int(c) for v, c in zip(values, counts, strict=True)},
    }


def build_report(
    format: ItemicFormat,
    codes: np.ndarray,
    domains: Sequence[str],
    *,
    tokenizer: ItemicTokenizer | None = None,
    items: TokenizedItems | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The report of final codes `[N, L]`; with `tokenizer` and `items` also what fitting left over.

    `relative_mse` is the residual error that is left after a level, over the variance of the vectors, as fitted;
    `relative_mse_final` the same after the collision policy (the extra level has none).
    """
    groups = domain_groups(format, domains)
    levels = compute_level_use(codes, format.codes_per_level)
    warnings = list(warnings)
    roomy = [level for level in levels if level["codes"] > len(codes)]
    if roomy:
        names = ", ".join(f"{level['level']} ({level['codes']})" for level in roomy)
        warnings.append(
            f"more codes than the {len(codes)} items at level {names}: most stay unassigned and the first level alone "
            "may tell all items apart; a smaller --codes suits this data."
        )
    report: dict[str, Any] = {
        "version": 1,
        "format": {"name": format.name, "codes_per_level": list(format.codes_per_level)},
        "levels": levels,
        "collisions": compute_collisions(codes, groups),
    }
    if tokenizer is not None and items is not None:
        depth = tokenizer.codebooks.num_levels
        for i in range(depth):
            for key, errors in (("relative_mse", items.encoded.errors), ("relative_mse_final", items.errors)):
                levels[i][key] = _ratio(float(errors[:, i].sum(dtype=np.float64)), items.variance)
            levels[i]["centroids"] = tokenizer.codebooks.num_fitted[i]
        report["collision_policy"] = tokenizer.config.collision
        report["collisions_before_policy"] = compute_collisions(items.encoded.codes, groups)
        report["num_items_moved"] = int((items.encoded.codes != codes[:, :depth]).any(axis=1).sum())
        report["num_items_without_evidence"] = items.num_without_evidence
    domain_names = np.asarray(list(domains))
    report["domains"] = {}
    for domain in dict.fromkeys(domains):
        mine = domain_names == domain
        part = {"levels": compute_level_use(codes[mine], format.codes_per_level)}
        report["domains"][domain] = {**part, "collisions": compute_collisions(codes[mine], groups[mine])}
    report["warnings"] = warnings
    return report


def _ratio(value: float, whole: float) -> float:
    """Vectors that are all equal leave no error to explain."""
    return value / whole if whole > 0 else 0.0


def render_tables(report: Mapping[str, Any]) -> list[Table]:
    """The report as rich tables: one row a level, and one row a domain with its collisions."""
    from rich.table import Table

    levels = Table(title=f"codes of format {report['format']['name']}")
    levels.add_column("level")
    for name in ("codes", "used", "utilisation", "entropy (bits)", "entropy / max", "error left", "after policy"):
        levels.add_column(name, justify="right")
    for row in report["levels"]:
        levels.add_row(
            row["level"],
            f"{row['codes']:,}",
            f"{row['used']:,}",
            f"{row['utilisation']:.1%}",
            f"{row['entropy_bits']:.2f}",
            f"{row['entropy_normalised']:.3f}",
            *(f"{row[key]:.1%}" if key in row else "-" for key in ("relative_mse", "relative_mse_final")),
        )
    buckets = Table(title="collisions")
    buckets.add_column("items of")
    for name in ("items", "sids", "items in collision", "share", "largest bucket"):
        buckets.add_column(name, justify="right")
    rows = [("all, before the policy", report["collisions_before_policy"])] if "num_items_moved" in report else []
    rows += [("all", report["collisions"])]
    if len(report["domains"]) > 1:
        rows += [(domain, part["collisions"]) for domain, part in report["domains"].items()]
    for name, row in rows:
        buckets.add_row(
            name,
            f"{row['num_items']:,}",
            f"{row['num_sids']:,}",
            f"{row['num_items_in_collision']:,}",
            f"{row['share_in_collision']:.2%}",
            f"{row['largest_bucket']:,}",
        )
    return [levels, buckets]


def write_report(report: Mapping[str, Any], folder: str | Path) -> None:
    """Writes `report.json` and `report.png` into an existing folder."""
    write_json(Path(folder) / REPORT_FILE, report)
    with atomic_file(Path(folder) / PLOT_FILE) as temporary:
        plot_report(report, temporary)


def plot_report(report: Mapping[str, Any], path: str | Path) -> None:
    """Four panels: utilisation, entropy, error left by level, and how many sids have how many items."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    levels = report["levels"]
    letters = [level["level"] for level in levels]
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)

    axes[0, 0].bar(letters, [level["utilisation"] for level in levels], color="tab:blue")
    axes[0, 0].set(title="codes in use", ylabel="share of the codebook", xlabel="level", ylim=(0, 1.05))

    axes[0, 1].bar(letters, [level["entropy_normalised"] for level in levels], color="tab:green")
    axes[0, 1].set(title="entropy of the code", ylabel="share of the maximum", xlabel="level", ylim=(0, 1.05))
    for at, level in enumerate(levels):
        axes[0, 1].annotate(f"{level['entropy_bits']:.2f} bits", (at, level["entropy_normalised"]), ha="center")

    fitted = [level for level in levels if "relative_mse" in level]
    for key, label, style in (("relative_mse", "as fitted", "o-"), ("relative_mse_final", "after the policy", "s--")):
        axes[1, 0].plot([lv["level"] for lv in fitted], [lv[key] for lv in fitted], style, label=label)
    axes[1, 0].set(title="residual error", ylabel="share of the variance left", xlabel="level", ylim=(0, None))
    if fitted:
        axes[1, 0].legend()
    else:
        axes[1, 0].text(0.5, 0.5, "ready ids: no vectors", ha="center", transform=axes[1, 0].transAxes)

    series = [("before the policy", report.get("collisions_before_policy")), ("final", report["collisions"])]
    for offset, (label, collisions) in zip((-0.2, 0.2), series, strict=True):
        if collisions:
            sizes = np.array([int(size) for size in collisions["buckets"]])
            axes[1, 1].bar(sizes + offset, list(collisions["buckets"].values()), width=0.4, label=label)
    axes[1, 1].set(title="items that share one sid", xlabel="items a sid", ylabel="sids", yscale="log")
    axes[1, 1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1, 1].legend()
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
