"""Rows of item understanding (R0): captions both ways, and questions about items, with and without a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_builders.common import Row
from data_builders.engine import Reject
from onereason.cognition.captions import CaptionVocabulary, clean_caption
from onereason.cognition.normalise import share_a_word
from onereason.cognition.reading import CatalogReading, Reader
from onereason.cognition.streams import Stream
from onereason.data.prompts import SWITCHES, Message, attribute_noun, opening_turns
from onereason.evaluation.layers.tasks.choices import LETTERS, render_choices

FIRST_WORDING_SHARE = 0.4
"""Of the rows, in the wording that evaluation asks with; the others are dealt evenly over all wordings."""
TEACHER_WORDS = 20
"""Words (in Chinese, characters) that a teacher is asked to keep a description to."""


@dataclass(frozen=True)
class PerceptionOptions:
    """How rows are made.

    Attributes:
        think_share: share of the rows that think, where there is something to think of.
        num_questions: attributes of an item that are asked for, each as a choice and in free form.
        num_choices: choices of a question, where there are so many.
        bits: what a caption may tell, the capacity of the codes; None for whole captions.
        max_chars: limit of a coarse caption and of a teacher's answer.
        asks_model: whether a language model writes descriptions and free answers.
        seed: of every choice.
    """

    think_share: float
    num_questions: int
    num_choices: int
    bits: float | None
    max_chars: int
    asks_model: bool
    seed: int


@dataclass(frozen=True)
class PerceptionItems:
    """A catalog's items as the rows show them; picklable.

    Attributes:
        item_ids: `N` ids.
        domains: `N` domain names.
        captions: `N` captions on one line, empty where unknown.
        cleaned: `N` captions without what no code can stand for.
        vocabulary: of the cleaned captions.
        ambiguous: captions that stand for several sids.
        catalog: codes, and what they have in common.
        choices: (domain asked for, aspect) -> the values that its items have, sorted.
    """

    item_ids: Sequence[str]
    domains: Sequence[str]
    captions: Sequence[str]
    cleaned: Sequence[str]
    vocabulary: CaptionVocabulary
    ambiguous: frozenset[str]
    catalog: CatalogReading
    choices: Mapping[tuple[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Exercise:
    """A row whose answer is not final; one with a `prompt` is a teacher's assignment.

    Attributes:
        id, task, domain: of the row.
        system, user: the question, without a switch.
        answer: by template.
        thinks: whether the row is to think.
        trace: what it thinks, None where there is nothing.
        value: what an answer in free form has to name, '' for a description.
        prompt: what a language model is asked, None where the answer is no matter of wording.
    """

    id: str
    task: str
    domain: str
    system: str
    user: str
    answer: str
    thinks: bool
    trace: str | None
    value: str = ""
    prompt: Sequence[Message] | None = None

    def compose(self) -> str:
        return self.answer

    def messages(self) -> list[Message]:
        assert self.prompt is not None, "only exercises with a prompt are given to a teacher"
        return list(self.prompt)


class ExerciseWriter:
    """Writes the exercises of the items `[start, stop)`; random choices are the item's own (`Stream`)."""

    def __init__(self, items: PerceptionItems, options: PerceptionOptions, start: int, stop: int) -> None:
        self._items, self._options, catalog = items, options, items.catalog
        self._reader = Reader(catalog, start, stop)
        self._variants, self._text = catalog.prompts.variants, catalog.prompts.text
        self._names = [attribute_noun(aspect.name, catalog.language) for aspect in catalog.aspects]
        self._questions = [self._variants(f"angle.{aspect.angle}.question") for aspect in catalog.aspects]
        self._answers = [self._variants(f"angle.{aspect.angle}.answer") for aspect in catalog.aspects]
        asked = self._text("item_qa.asked")
        self._choice_questions = [
            (*self._variants("item_qa.user"), *(asked.replace("{question}", question) for question in questions))
            for questions in self._questions
        ]
        self._systems = {
            name: [text.format() for text in self._variants(f"{name}.system")]
            for name in ("caption", "grounding", "item_qa", "question")
        }

    def write(self, index: int) -> list[Exercise | Reject]:
        """The exercises of one item, and why there is one less."""
        stream = Stream(self._options.seed, index)
        return [self.caption(index, stream), self.grounding(index, stream), *self.questions(index, stream)]

    def caption(self, index: int, stream: Stream) -> Exercise | Reject:
        """Pattern -> description."""
        items, options = self._items, self._options
        row_id, caption = f"caption:{items.item_ids[index]}", items.captions[index]
        if not caption:
            return Reject(row_id, "no_caption")
        answer = caption
        if options.bits is not None:
            answer = items.vocabulary.coarsen(items.cleaned[index], options.bits, options.max_chars)
            if not answer:
                return Reject(row_id, "coarse_caption_empty", caption)
        noun, thinks = self._reader.noun(index), stream.chance(options.think_share)
        known = self._text("trace.join").join(self._reader.facts(index)) if options.asks_model else ""
        return Exercise(
            row_id,
            "caption",
            items.domains[index],
            _deal(self._systems["caption"], stream),
            _deal(self._variants("caption.user"), stream).format(noun=noun, pattern=items.catalog.patterns[index]),
            answer,
            thinks,
            self._reader.read_pattern(index) if thinks else None,
            prompt=self._prompt("caption", noun=noun, caption=caption, facts=known, words=TEACHER_WORDS),
        )

    def grounding(self, index: int, stream: Stream) -> Exercise | Reject:
        """Description -> pattern; the description is the whole caption."""
        items = self._items
        row_id, caption = f"grounding:{items.item_ids[index]}", items.captions[index]
        if not caption:
            return Reject(row_id, "no_caption")
        if caption in items.ambiguous:
            return Reject(row_id, "caption_of_several_sids", caption)
        thinks = stream.chance(self._options.think_share)
        user = _deal(self._variants("grounding.user"), stream).format(noun=self._reader.noun(index), caption=caption)
        return Exercise(
            row_id,
            "grounding",
            items.domains[index],
            _deal(self._systems["grounding"], stream),
            user,
            items.catalog.patterns[index],
            thinks,
            self._reader.read_description(index, caption) if thinks else None,
        )

    def questions(self, index: int, stream: Stream) -> list[Exercise | Reject]:
        """Questions about the item, each as a choice and in free form."""
        if not self._options.num_questions:
            return []
        domain = self._items.catalog.domains[index]
        known = [
            aspect
            for aspect in range(len(self._names))
            if self._reader.value(index, aspect) is not None and len(self._items.choices[domain, aspect]) > 1
        ]
        found: list[Exercise | Reject] = []
        for place in stream.sample(len(known), min(self._options.num_questions, len(known))):
            if wrong := self._wrong_values(index, known[place], stream):
                found += [self._choice(index, known[place], wrong, stream), self._free(index, known[place], stream)]
        return found or [Reject(f"item_qa:{self._items.item_ids[index]}", "no_attribute")]

    def _wrong_values(self, index: int, aspect: int, stream: Stream) -> list[str]:
        """Values of other items of the domain that the item has not, in random order."""
        values = self._items.choices[self._items.catalog.domains[index], aspect]
        own = self._items.catalog.aspects[aspect].further.get(index, frozenset())
        own = own | {self._reader.value(index, aspect)}
        wanted = self._options.num_choices - 1
        drawn = stream.sample(len(values), min(len(values), wanted + len(own)))
        return [values[place] for place in drawn if values[place] not in own][:wanted]

    def _choice(self, index: int, aspect: int, wrong: Sequence[str], stream: Stream) -> Exercise:
        value = self._reader.value(index, aspect)
        assert value is not None
        right = stream.below(len(wrong) + 1)
        choices = [*wrong[:right], value, *wrong[right:]]
        return self._question(index, aspect, stream, "choice", LETTERS[right], render_choices(choices))

    def _free(self, index: int, aspect: int, stream: Stream) -> Exercise:
        value = self._reader.value(index, aspect)
        assert value is not None
        noun, name = self._reader.noun(index), self._names[aspect]
        answer = _deal(self._answers[aspect], stream).format(noun=noun, attribute=name, value=value)
        return self._question(index, aspect, stream, "free", answer, value=value)

    def _question(
        self, index: int, aspect: int, stream: Stream, form: str, answer: str, choices: str = "", value: str = ""
    ) -> Exercise:
        items, noun, name = self._items, self._reader.noun(index), self._names[aspect]
        wordings = self._choice_questions[aspect] if choices else self._questions[aspect]
        user = _deal(wordings, stream).format(
            noun=noun, attribute=name, pattern=items.catalog.patterns[index], choices=choices
        )
        thinks = stream.chance(self._options.think_share)
        prompt = None
        if value:
            prompt = self._prompt("answer", noun=noun, caption=items.captions[index], attribute=name, value=value)
        return Exercise(
            f"item_qa:{items.item_ids[index]}:{items.catalog.aspects[aspect].name}:{form}",
            "item_qa",
            items.domains[index],
            _deal(self._systems["item_qa" if choices else "question"], stream),
            user,
            answer,
            thinks,
            self._reader.read_pattern(index, aspect) if thinks else None,
            value,
            prompt,
        )

    def _prompt(self, kind: str, **fields: object) -> Sequence[Message] | None:
        if not self._options.asks_model:
            return ()
        system, user = (self._text(f"teacher.{kind}.{turn}").format(**fields) for turn in ("system", "user"))
        return opening_turns(system, user)


def _deal(variants: Sequence[str], stream: Stream) -> str:
    return variants[0] if stream.chance(FIRST_WORDING_SHARE) else variants[stream.below(len(variants))]


def check_answer(exercise: Exercise, text: str, items: PerceptionItems, options: PerceptionOptions) -> str | Reject:
    """A language model's answer on one line, or why it is no use.

    What no code can stand for is taken out of a description, as out of the catalog's own.
    """
    line = " ".join(text.split())
    found = items.catalog.format.parse(line)
    if found.items or found.num_malformed:
        return Reject(exercise.id, "teacher_itemic_tokens", line)
    if line.startswith(("{", "[", "```")):
        return Reject(exercise.id, "teacher_answer_not_prose", line)
    if exercise.value and exercise.value.lower() not in line.lower():
        return Reject(exercise.id, "teacher_answer_without_value", line)
    if not exercise.value and options.bits is not None and not (line := clean_caption(line)):
        return Reject(exercise.id, "coarse_caption_empty", text)
    if not exercise.value and not share_a_word(line, exercise.answer):
        return Reject(exercise.id, "teacher_answer_unrelated", line)
    if len(line) > options.max_chars:
        return Reject(exercise.id, "teacher_answer_too_long", line)
    return line


def exercise_row(exercise: Exercise, answer: str, teacher: str) -> tuple[Row, Reject | None]:
    """The row, and why it does not think though it was to.

    A trace must not hold the answer word for word; a letter is no word.
    """
    trace, without = exercise.trace, None
    if exercise.thinks and trace is None:
        without = Reject(f"{exercise.id}:think", "trace_without_evidence")
    elif trace is not None and len(answer) > 1 and answer.rstrip(".。").lower() in trace.lower():
        trace, without = None, Reject(f"{exercise.id}:think", "answer_in_trace", answer)
    mode = "no_think" if trace is None else "think"
    content = answer if trace is None else f"<think>\n{trace}\n</think>\n\n{answer}"
    row: Row = {
        "id": exercise.id,
        "task": exercise.task,
        "loss": "assistant",
        "mode": mode,
        "messages": [
            {"role": "system", "content": exercise.system},
            {"role": "user", "content": exercise.user + SWITCHES[mode]},
            {"role": "assistant", "content": content},
        ],
        "domain": exercise.domain,
        "teacher": teacher,
    }
    return row, without
