r"""Evaluation rows of the diagnostic layers R0 to R3 and of general ability, for `onereason evaluate-layers`.

    python -m data_builders.build_layers --data runs/world --catalog runs/catalog --gsm8k gsm8k_test.jsonl \
        --out runs/layers

| task | made from |
|---|---|
| caption, grounding | the catalog's captions |
| item_qa | themes and traits of items; wrong choices are other values of the attribute in the same domain |
| item2item | the relations of a simulated world's truth, else what stands next to an item in training histories |
| action_selection, topic, direct | how interests evolve by a simulated world's truth; left out for other data |
| next_item | the first validation item of users, asked for behind their training history |
| gsm8k | a file of `{"question", "answer"}` lines |
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from data_builders.cards import prompt_settings
from data_builders.common import (
    CARD_FILE,
    ROWS_FILE,
    SPLIT_METHODS,
    ItemTexts,
    Row,
    add_language_argument,
    build_parser,
    load_training_part,
    render_card,
    run_builder,
    track,
)
from data_builders.layer_sources import (
    Episode,
    NextItem,
    Relations,
    load_episodes,
    load_next_items,
    load_relations,
)
from onereason.cognition.captions import ambiguous_captions
from onereason.cognition.facts import ItemFacts, load_item_facts
from onereason.cognition.trace import load_headings
from onereason.data.prompts import caption_messages
from onereason.data.schema import ITEMS_FILE
from onereason.errors import ConfigError, DataError
from onereason.evaluation.layers.tasks import (
    action_selection,
    direct,
    grounding,
    gsm8k,
    item2item,
    item_qa,
    next_item,
    topic,
)
from onereason.evaluation.layers.tasks.choices import LETTERS
from onereason.evaluation.scores.text_scores import extract_number
from onereason.io import (
    MANIFEST_NAME,
    atomic_dir,
    build_manifest,
    iter_jsonl,
    require_file,
    write_json,
    write_jsonl,
    write_text,
)
from onereason.itemic.catalog import Catalog

PROMPT_SETS = ("domains", "perception", "derivation", "evolution", "recommendation", "trace")
CARD = """
Questions with references that `onereason evaluate-layers` asks a model, with and without thinking. R0: describe an
item, find the item of a description, answer a question about an item. R1: which item goes with an item. R2: which
actions of a timeline make up the longest episode of an interest, and how the interest evolves in it. R3: which item
comes next, written freely. General: grade-school mathematics.

Timelines, histories and co-occurrences are of the training part of the split.
The targets of `next_item` rows, and nothing else, are validation items: the first one of each user, asked for in its
domain. A model that was selected on the validation part has been selected on them too. Test interactions are in no
row.
"""

AttributeValues = Mapping[tuple[str, str], set[str]]
"""(domain, attribute) -> the values that items of the domain have."""


def caption_row(item_id: str, index: int, items: ItemTexts, language: str = "en") -> Row | str:
    """ "What is this item about", or why there is no such row."""
    caption = items.captions[index].strip()
    if not caption:
        return "empty_caption"
    # The switch is added when the row is asked.
    messages = caption_messages(items.patterns[index], items.domains[index], items.format, None, language)
    return _row("caption", item_id, messages, {"caption": caption})


def grounding_row(item_id: str, index: int, items: ItemTexts, ambiguous: Set[str], language: str = "en") -> Row | str:
    """ "Which item is this about"; not for captions that items of several sids share."""
    caption = items.captions[index].strip()
    if not caption:
        return "empty_caption"
    if caption in ambiguous:
        return "caption_of_several_sids"
    messages = grounding.build_messages(caption, items.domains[index], language)
    return _row("grounding", item_id, messages, {"pattern": items.patterns[index]})


def item_qa_row(
    index: int, facts: ItemFacts, values: AttributeValues, num_choices: int, rng: random.Random, language: str = "en"
) -> Row | str:
    """A question about the theme or a trait of an item, drawn from those that have another value in its domain.

    Of several values, the last is asked for: lists run from wide to narrow.
    """
    item_id, domain = facts.item_ids[index], facts.domains[index]
    known = {name: own for name, own in facts.attributes[index].items() if values.get((domain, name), set()) - set(own)}
    if not known:
        return "no_attribute_to_ask_about"
    attribute = rng.choice(sorted(known))
    others = sorted(values[domain, attribute] - set(known[attribute]))
    true = known[attribute][-1]
    choices, answer = mix(true, rng.sample(others, min(num_choices - 1, len(others))), rng)
    messages = item_qa.build_messages(facts.patterns[index], domain, attribute, choices, language)
    return _row("item_qa", f"{item_id}:{attribute}", messages, {"answer": answer, "choices": choices})


def attribute_values(facts: ItemFacts) -> AttributeValues:
    """All values of theme and traits that the items of a domain have."""
    values: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    names = {facts.theme_attribute, *facts.trait_names}
    for domain, of_item in zip(facts.domains, facts.attributes, strict=True):
        for name in names & of_item.keys():
            values[domain, name].update(of_item[name])
    return dict(values)


def item2item_row(
    pair: tuple[int, str, int],
    items: ItemTexts,
    relations: Relations,
    num_choices: int,
    rng: random.Random,
    language: str = "en",
) -> Row | str:
    """ "Which item goes with this one": the target among patterns of its domain that stand for unrelated items only.

    Args:
        pair: source, relation, target.
    """
    source, relation, target = pair
    unlike = {items.patterns[source], items.patterns[target]}
    if len(unlike) < 2:
        return "target_under_the_source_s_sid"
    wrong: dict[str, None] = {}
    pool = relations.by_domain[items.domains[target]]
    for candidate in rng.sample(pool, min(len(pool), 20 * num_choices)):
        if items.patterns[candidate] not in unlike and not relations.may_go_together(source, candidate):
            wrong[items.patterns[candidate]] = None
        if len(wrong) == num_choices - 1:
            break
    if not wrong:
        return "no_unrelated_item"
    choices, answer = mix(items.patterns[target], list(wrong), rng)
    messages = item2item.build_messages(items.patterns[source], items.domains[source], choices, language)
    row_id = f"{relations.item_ids[source]}:{relation}"
    return _row("item2item", row_id, messages, {"answer": answer, "choices": choices})


def action_selection_row(episode: Episode, language: str = "en") -> Row | str:
    """ "Which entries make up the longest episode of this interest"."""
    messages = action_selection.build_messages(episode.timeline, episode.topic, language)
    reference = {"actions": [episode.timeline[place] for place in episode.places]}
    return _row("action_selection", episode.user_id, messages, reference)


def topic_row(episode: Episode, language: str = "en") -> Row | str:
    """ "How does this interest evolve"."""
    messages = topic.build_messages(episode.timeline, episode.topic, language)
    return _row("topic", episode.user_id, messages, _chain(episode))


def direct_row(episode: Episode, language: str = "en") -> Row | str:
    """ "How does the main interest evolve"; not for users with several episodes of equal length."""
    if not episode.is_main:
        return "several_main_interests"
    return _row("direct", episode.user_id, direct.build_messages(episode.timeline, language), _chain(episode))


def next_item_row(example: NextItem, items: ItemTexts, max_history: int, language: str = "en") -> Row:
    """ "Which item comes next", behind the newest `max_history` items; the headings are those a trace should have."""
    shown = "".join(items.patterns[item] for item in example.history[-max_history:])
    messages = next_item.build_messages(shown, items.domains[example.target], items.format, language)
    reference = {"pattern": items.patterns[example.target], "headings": list(load_headings(language))}
    return _row("next_item", example.user_id, messages, reference)


def gsm8k_row(record: dict[str, Any], row_id: str) -> Row | str:
    """A line of the public file; the reference is what stands behind its `####`."""
    question, answer = record.get("question"), record.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
        return "no_question_and_answer"
    if extract_number(answer) is None:
        return "no_number"
    final = answer.rpartition("####")[2].strip()
    return _row("gsm8k", row_id, gsm8k.build_messages(question), {"answer": final})


def mix(true: str, wrong: Sequence[str], rng: random.Random) -> tuple[list[str], str]:
    """Choices in random order, and the letter of the true one."""
    choices = [true, *wrong]
    rng.shuffle(choices)
    return choices, LETTERS[choices.index(true)]


def _chain(episode: Episode) -> Row:
    return {"logic_chain": {"name": episode.topic, "events": list(episode.events)}}


def _row(task: str, name: str, messages: Sequence[dict[str, str]], reference: Row) -> Row:
    return {"id": f"{task}:{name}", "task": task, "messages": list(messages), "reference": reference}


def take(
    task: str,
    candidates: Sequence[Any],
    make: Callable[[Any, random.Random], Row | str],
    max_rows: int,
    seed: int,
    rejected: Counter[str],
) -> list[Row]:
    """At most `max_rows` rows of candidates drawn with the seed, in the order of the candidates."""
    order = list(range(len(candidates)))
    random.Random(f"{seed}:{task}").shuffle(order)
    rows: dict[int, Row] = {}
    for place in track(order, len(order), f"{task} rows"):
        if len(rows) == max_rows:
            break
        row = make(candidates[place], random.Random(f"{seed}:{task}:{place}"))
        if isinstance(row, str):
            rejected[f"{task}: {row}"] += 1
        else:
            rows[place] = row
    return [rows[place] for place in sorted(rows)]


def item_and_user_rows(args: argparse.Namespace, rejected: Counter[str], inputs: list[Path]) -> Iterator[Row]:
    """The rows of R0 to R3; the files they are made of go to `inputs`."""
    part = load_training_part(args)
    items, language = part.items, args.language
    catalog = Catalog.load(args.catalog)
    facts = load_item_facts(args.data, catalog)
    values = attribute_values(facts)
    relations = load_relations(args.data, facts.item_ids, items, part.histories)
    episodes = load_episodes(args.data, part, args.max_history, rejected, language)
    inputs += [*part.inputs, args.data / ITEMS_FILE, *relations.inputs, *(episodes.inputs if episodes else ())]
    indices = list(range(len(facts.item_ids)))
    ambiguous = ambiguous_captions(items.captions, items.patterns)

    def some(task: str, candidates: Sequence[Any], make: Callable[[Any, random.Random], Row | str]) -> list[Row]:
        return take(task, candidates, make, args.max_rows, args.seed, rejected)

    yield from some("caption", indices, lambda i, rng: caption_row(facts.item_ids[i], i, items, language))
    yield from some(
        "grounding", indices, lambda i, rng: grounding_row(facts.item_ids[i], i, items, ambiguous, language)
    )
    yield from some("item_qa", indices, lambda i, rng: item_qa_row(i, facts, values, args.choices, rng, language))
    yield from some(
        "item2item",
        relations.pairs,
        lambda pair, rng: item2item_row(pair, items, relations, args.choices, rng, language),
    )
    if episodes:
        for task, make in (("action_selection", action_selection_row), ("topic", topic_row), ("direct", direct_row)):
            yield from some(task, episodes.episodes, lambda episode, rng, make=make: make(episode, language))
    yield from some(
        "next_item",
        load_next_items(args, catalog.index, rejected),
        lambda example, rng: next_item_row(example, items, args.max_history, language),
    )


def build(args: argparse.Namespace) -> None:
    if (args.data is None) != (args.catalog is None):
        raise ConfigError("--data and --catalog belong together; give both, or neither with --gsm8k.")
    if args.data is None and args.gsm8k is None:
        raise ConfigError("there is nothing to make rows of; give --data and --catalog, or --gsm8k FILE.")
    if args.max_rows < 1 or args.max_history < 2:
        raise ConfigError(
            f"--max-rows ({args.max_rows}) must be at least 1 and --max-history ({args.max_history}) at least 2."
        )
    if not 2 <= args.choices <= len(LETTERS):
        raise ConfigError(f"--choices must lie between 2 and {len(LETTERS)}, got {args.choices}.")
    prompt_settings(args.language, PROMPT_SETS)  # an unknown language is refused before anything is read
    rejected: Counter[str] = Counter()
    inputs: list[Path] = []
    rows: list[Row] = []
    if args.gsm8k is not None:
        inputs.append(require_file(args.gsm8k, "GSM8K"))
        records = list(enumerate(iter_jsonl(args.gsm8k, "GSM8K"), 1))
        rows += take(
            "gsm8k",
            records,
            lambda record, rng: gsm8k_row(record[1], f"{args.gsm8k.stem}:{record[0]}"),
            args.max_rows,
            args.seed,
            rejected,
        )
    if args.data is not None:
        rows = [*item_and_user_rows(args, rejected, inputs), *rows]
    write_rows(args, rows, rejected, inputs)


def write_rows(args: argparse.Namespace, rows: Sequence[Row], rejected: Counter[str], inputs: Iterable[Path]) -> None:
    """`rows.jsonl`, the manifest and the data card, whole or not at all."""
    if not rows:
        raise DataError(f"no row is left for {args.out}: rejected {dict(rejected) or 'nothing, the input is empty'}.")
    counts = Counter(row["task"] for row in rows)
    options = ("max_rows", "max_history", "choices", "split_method", "validation_start", "test_start")
    config = {name: getattr(args, name) for name in options}
    if args.data is not None:
        config["next_item_targets"] = "validation"
    manifest = build_manifest(
        "evaluation_rows",
        inputs=inputs,
        config=config | prompt_settings(args.language, PROMPT_SETS),
        seed=args.seed,
        counts={"rows": len(rows), **counts},
        rejected=rejected,
    )
    with atomic_dir(args.out, args.overwrite) as folder:
        write_jsonl(folder / ROWS_FILE, rows)
        write_json(folder / MANIFEST_NAME, manifest)
        write_text(folder / CARD_FILE, render_card("Layered evaluation", CARD, manifest, rows[0]))
    print(f"wrote {args.out}: " + ", ".join(f"{count} {task}" for task, count in counts.items()))


def main(argv: list[str] | None = None) -> int:
    parser = build_parser(__doc__, timelines=False)
    parser.add_argument("--data", type=Path, help="dataset folder; a simulated world's truth is used where it has one")
    parser.add_argument("--catalog", type=Path, help="catalog folder (or a model folder)")
    parser.add_argument("--gsm8k", type=Path, metavar="FILE", help="the public GSM8K file (.jsonl)")
    add_language_argument(parser)
    parser.add_argument("--max-rows", type=int, default=500, help="rows of each task, drawn with --seed")
    parser.add_argument("--max-history", type=int, default=50, help="newest entries of a timeline or history")
    parser.add_argument("--choices", type=int, default=4, help="choices of a question, where there are so many")
    parser.add_argument(
        "--split-method", choices=SPLIT_METHODS, default="leave-one-out", help="what counts as training"
    )
    parser.add_argument("--validation-start", type=int, help="temporal split: training ends before this timestamp")
    parser.add_argument("--test-start", type=int, help="temporal split: validation ends before this timestamp")
    return run_builder(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
