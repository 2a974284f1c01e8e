"""The kinds of exercises, which of them make sense for a catalog, and which one a unit gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onereason.cognition.instructions import compare, control, convert, match, retrieve, verify
from onereason.cognition.instructions.base import Exercise, Maker, Scene, Stock
from onereason.errors import ConfigError

ATTEMPTS = 12
"""Scenes that are drawn for a unit before it gives no row."""

NONE, ITEMS, TWO = "none", "items", "two"
"""Layouts of a question: all in the request, a list beside it, two lists."""


@dataclass(frozen=True)
class Kind:
    """One kind of exercise.

    Attributes:
        name: `group.kind`; the wording's name in the prompt set.
        make: makes an exercise of a scene.
        layout: of the question.
        needs: features (`Stock.features`) without which the kind makes no sense.
    """

    name: str
    make: Maker
    layout: str
    needs: frozenset[str] = frozenset()


def _kind(name: str, make: Maker, layout: str = ITEMS, *needs: str) -> Kind:
    return Kind(name, make, layout, frozenset(needs))


GROUPS: dict[str, tuple[Kind, ...]] = {
    "convert": (
        _kind("convert.to_json", convert.to_json, NONE),
        _kind("convert.from_json", convert.from_json, NONE),
        _kind("convert.list_to_json", convert.list_to_json),
        _kind("convert.list_to_csv", convert.list_to_csv),
        _kind("convert.csv_to_list", convert.csv_to_list),
        _kind("convert.to_lines", convert.to_lines),
        _kind("convert.replace", convert.replace),
        _kind("convert.insert", convert.insert),
        _kind("convert.delete", convert.delete),
        _kind("convert.remove", convert.remove),
        _kind("convert.reverse", convert.reverse),
        _kind("convert.deduplicate", convert.deduplicate),
        _kind("convert.swap", convert.swap),
    ),
    "retrieve": (
        _kind("retrieve.nth", retrieve.nth),
        _kind("retrieve.nth_last", retrieve.nth_last),
        _kind("retrieve.first_k", retrieve.first_k),
        _kind("retrieve.last_k", retrieve.last_k),
        _kind("retrieve.of_domain", retrieve.of_domain, ITEMS, "domains"),
        _kind("retrieve.before_date", retrieve.before_date, ITEMS, "dates"),
        _kind("retrieve.after_date", retrieve.after_date, ITEMS, "dates"),
        _kind("retrieve.of_theme", retrieve.of_theme, ITEMS, "themes"),
        _kind("retrieve.next_after", retrieve.next_after),
        _kind("retrieve.position_of", retrieve.position_of),
    ),
    "match": (
        _kind("match.same_first_code", match.same_first_code, NONE),
        _kind("match.same_item", match.same_item, NONE),
        _kind("match.same_domain", match.same_domain, NONE, "domains"),
        _kind("match.which_domain", match.which_domain, NONE, "domains"),
        _kind("match.group_by_domain", match.group_by_domain, ITEMS, "domains"),
        _kind("match.shared_codes", match.shared_codes, NONE, "levels"),
        _kind("match.with_first_code", match.with_first_code),
        _kind("match.captions", match.captions, TWO, "names"),
    ),
    "compare": (
        _kind("compare.count_by_domain", compare.count_by_domain, ITEMS, "domains"),
        _kind("compare.most_frequent_item", compare.most_frequent_item),
        _kind("compare.most_frequent_code", compare.most_frequent_code),
        _kind("compare.count_item", compare.count_item),
        _kind("compare.count_distinct", compare.count_distinct),
        _kind("compare.longer_list", compare.longer_list, TWO),
        _kind("compare.intersection", compare.intersection, TWO),
        _kind("compare.union", compare.union, TWO),
        _kind("compare.difference", compare.difference, TWO),
    ),
    "verify": (
        _kind("verify.well_formed", verify.well_formed, NONE, "levels"),
        _kind("verify.count_well_formed", verify.count_well_formed, ITEMS, "levels"),
        _kind("verify.repair", verify.repair, NONE, "levels"),
        _kind("verify.continue_cycle", verify.continue_cycle),
        _kind("verify.sort_by_codes", verify.sort_by_codes),
        _kind("verify.most_common_theme", verify.most_common_theme, ITEMS, "themes"),
        _kind("verify.no_duplicates", verify.no_duplicates),
        _kind("verify.ordered_by_date", verify.ordered_by_date, ITEMS, "dates"),
        _kind("verify.ordered_by_first_code", verify.ordered_by_first_code),
        _kind("verify.all_of_domain", verify.all_of_domain, ITEMS, "domains"),
    ),
    "control": (
        _kind("control.json_list", control.json_list),
        _kind("control.comma", control.comma),
        _kind("control.numbered", control.numbered_lines),
        _kind("control.exactly_k", control.exactly_k),
        _kind("control.upper_keys", control.upper_keys, NONE),
        _kind("control.with_captions", control.with_captions, ITEMS, "names"),
        _kind("control.without_captions", control.without_captions, ITEMS, "names"),
        _kind("control.codes_only", control.codes_only),
    ),
}
"""Group -> its kinds. Every group has kinds that need nothing."""


def available_kinds(
    stock: Stock, wanted: Sequence[str] | None = None
) -> tuple[dict[str, tuple[Kind, ...]], dict[str, list[str]]]:
    """The kinds of each group that make sense for a stock, and the others: name -> the features they lack.

    Args:
        wanted: names of kinds or of groups; None for all. Groups of which none is wanted are left out.

    Raises:
        ConfigError: a wanted name is no kind and no group, or nothing that is wanted makes sense for the stock.
    """
    names = {name for group, kinds in GROUPS.items() for name in (group, *(kind.name for kind in kinds))}
    if wanted is not None and (unknown := [name for name in wanted if name not in names]):
        known = ", ".join(sorted(names))
        raise ConfigError(f"no kind or group of exercises is called {', '.join(unknown)}; there are: {known}.")
    kept: dict[str, tuple[Kind, ...]] = {}
    skipped: dict[str, list[str]] = {}
    for group, kinds in GROUPS.items():
        asked = [kind for kind in kinds if wanted is None or group in wanted or kind.name in wanted]
        fitting = tuple(kind for kind in asked if kind.needs <= stock.features)
        if fitting:
            kept[group] = fitting
        skipped |= {kind.name: sorted(kind.needs - stock.features) for kind in asked if kind not in fitting}
    if not kept:
        lacking = "; ".join(f"{name} needs {', '.join(features)}" for name, features in skipped.items())
        raise ConfigError(f"no kind of exercise that is asked for makes sense for this data: {lacking}.")
    return kept, skipped


def kind_of_unit(kinds: Mapping[str, Sequence[Kind]], unit: int) -> Kind:
    """Units take the groups in turn, and inside a group its kinds in turn."""
    groups = list(kinds.values())
    round_, group = divmod(unit, len(groups))
    return groups[group][round_ % len(groups[group])]


def build_exercise(kind: Kind, scene: Scene) -> Exercise | None:
    """An exercise of a kind; None where no scene that was drawn serves."""
    for _ in range(ATTEMPTS):
        scene.user = None
        exercise = kind.make(scene)
        if exercise is not None:
            return exercise
    return None
