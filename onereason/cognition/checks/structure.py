"""Does a trace keep to its form: the stages, the number of candidate interests, the length, no stray tokens?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from onereason.cognition.checks.patterns import PatternReader
from onereason.cognition.checks.problem import Problem, excerpt
from onereason.cognition.normalise import normalise
from onereason.errors import ConfigError

_CONTROL = re.compile(
    r"<\|(?:im_start|im_end|endoftext|object_ref_start|object_ref_end|box_start|box_end|vision_\w+|fim_\w+|repo_name|"
    r"file_sep)\|>|</?(?:think|tool_call|tool_response)>"
)
_CANDIDATE = re.compile(r"[ \t]*(?:\(?\d{1,2}[.)、:：．]|[-*•·]|[①-⑩])[ \t]*(\S.*)")  # noqa: RUF001
_LETTER = re.compile(r"\w")
_NAME_END = re.compile(r"[:：,，;；。(（\n]|\.(?:\s|$)| - | – | — ")  # noqa: RUF001


# -- lengths --------------------------------------------------------------------------------------------------------


def count_characters(text: str) -> int:
    return len(text)


def count_words(text: str) -> int:
    """Runs of letters and digits; a CJK character is a word."""
    return len(normalise(text).words)


_TOKEN = re.compile(r"<[^<>\s]+>|[A-Za-z]{1,12}|\d|[^\x00-\x7f]|[^\sA-Za-z\d]+")


def count_approximate_tokens(text: str) -> int:
    """About as many tokens as a Qwen3 tokenizer makes, itemic tokens counted as one each; no model is needed.

    A word of up to 12 letters, a digit, a character beyond ASCII and a run of punctuation are one token each.
    """
    return len(_TOKEN.findall(text))


# -- form -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TraceForm:
    """What a trace should look like."""

    headings: tuple[str, ...]
    """The stages' headings, in order; a stage is what follows a line that begins with its heading."""
    candidates_in: int | None = 1
    """Which stage lists the candidate interests, one a line that begins with a number or a dash; None for none."""
    min_candidates: int = 1
    """Fewest candidates."""
    max_candidates: int = 5
    """Most candidates."""
    min_length: int = 1
    """Shortest trace, by `measure`."""
    max_length: int = 1024
    """Longest trace, by `measure`; a whole pattern counts as its tokens, where patterns are known."""
    measure: Callable[[str], int] = count_words
    """How long a text is."""

    def __post_init__(self) -> None:
        if not all(heading.strip() for heading in self.headings) or len(set(self.headings)) < len(self.headings):
            raise ConfigError(f"headings must be distinct and not empty, got {list(self.headings)}.")
        if self.candidates_in is not None and not 0 <= self.candidates_in < len(self.headings):
            raise ConfigError(f"candidates_in ({self.candidates_in}) must be a stage of {len(self.headings)}.")
        for low, high, what in (
            (self.min_candidates, self.max_candidates, "candidates"),
            (self.min_length, self.max_length, "length"),
        ):
            if not 0 <= low <= high:
                raise ConfigError(f"min_{what} ({low}) must be at least 0 and at most max_{what} ({high}).")


def split_stages(trace: str, headings: Sequence[str]) -> list[str | None]:
    """What stands under each heading, stripped; None where the heading does not stand at the start of a line.

    Where a heading stands twice, what follows the first counts.
    """
    return list(_read_stages(trace, tuple(headings))[1])


@lru_cache(maxsize=16)
def _read_stages(trace: str, headings: tuple[str, ...]) -> tuple[tuple[tuple[int, ...], ...], tuple[str | None, ...]]:
    """Places of the headings, and what stands under them.

    The last traces are kept, because several checks ask for the stages of one.
    """
    plain = _plain_form(headings)
    if plain is not None and (match := plain.fullmatch(trace)):
        starts = [match.start(i) - len(heading) for i, heading in enumerate(headings, 1)]
        return tuple((at,) for at in starts), tuple(map(str.strip, match.groups()))
    places = find_headings(trace, headings)
    starts = sorted([at for several in places for at in several])
    starts.append(len(trace))
    stages: list[str | None] = []
    for several, heading in zip(places, headings, strict=True):
        if several:
            end = starts[starts.index(several[0]) + 1]
            stages.append(trace[several[0] + len(heading) : end].strip())
        else:
            stages.append(None)
    return places, tuple(stages)


@cache
def _plain_form(headings: tuple[str, ...]) -> re.Pattern[str] | None:
    """Traces without ado: one stage after the other, whose further lines are numbered, so that none is a heading.

    None where a heading may stand there all the same.
    """
    alone = not any(a != b and a.startswith(b) for a in headings for b in headings)
    if not alone or any(h[0] in " \t#*0123456789" or h[-1].isalnum() or "\n" in h for h in headings):
        return None
    return re.compile("\n".join([rf"{re.escape(h)}([^\n]*(?:\n[0-9][^\n]*)*)" for h in headings]))


def find_headings(trace: str, headings: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Where each heading begins a line.

    Hash marks and asterisks before it are Markdown; letters after it make it another word.
    """
    found = []
    for heading in headings:
        places = []
        at = trace.find(heading)
        while at >= 0:
            opens = at == 0 or trace[at - 1] == "\n" or not trace[trace.rfind("\n", 0, at) + 1 : at].strip(" \t#*")
            end = at + len(heading)
            is_word = heading[-1].isalnum() and heading.isascii() and trace[end : end + 1].isalnum()
            if opens and not is_word:
                places.append(at)
            at = trace.find(heading, end)
        found.append(tuple(places))
    return tuple(found)


def list_candidates(stage: str) -> list[str]:
    """The candidates of a stage: lines that begin with a number, a dash or a bullet, without that."""
    return [match.group(1).strip() for line in stage.splitlines() if (match := _CANDIDATE.match(line))]


def candidate_name(candidate: str) -> str:
    """The name of a candidate interest: what stands before its first colon, comma, bracket or full stop."""
    plain = candidate.replace("**", "")
    return _NAME_END.split(plain, maxsplit=1)[0].strip(" *\"'“”「」")


def check_structure(trace: str, form: TraceForm, reader: PatternReader | None = None) -> list[Problem]:
    """What is wrong with a trace's form; empty where nothing is.

    Reasons: `trace_empty`, `stage_missing`, `stage_repeated`, `stage_order`, `stage_empty`, `candidates_few`,
    `candidates_many`, `trace_short`, `trace_long`, `stray_tokens` (itemic tokens outside whole patterns, where a
    reader is given), `control_tokens` (chat or think tokens).
    """
    if not trace.strip():
        return [Problem("trace_empty")]
    found = _check_stages(trace, form)
    if reader is None:
        length = form.measure(trace)
    else:
        patterns, rest = reader.read(trace)
        length = form.measure(rest) + len(patterns) * reader.format.pattern_length
    if length < form.min_length:
        found.append(Problem("trace_short", f"{length} of at least {form.min_length}"))
    if length > form.max_length:
        found.append(Problem("trace_long", f"{length} of at most {form.max_length}"))
    return found + check_tokens(trace, reader)


def check_tokens(text: str, reader: PatternReader | None = None) -> list[Problem]:
    """`control_tokens` and `stray_tokens` of a text (see `check_structure`)."""
    found = []
    rest = text if reader is None else reader.read(text)[1]
    if "<" in rest and (control := _CONTROL.search(rest)):
        found.append(Problem("control_tokens", control.group()))
    stray = None if reader is None else reader.find_stray(text)
    # Some formats own end tokens that they do not write, and that may stand behind a pattern.
    if reader is not None and stray is not None and reader.format.parse(text).num_malformed:
        found.append(Problem("stray_tokens", stray))
    return found


def _check_stages(trace: str, form: TraceForm) -> list[Problem]:
    places, stages = _read_stages(trace, form.headings)
    firsts = [at[0] for at in places if len(at) == 1]
    found = []
    if len(firsts) < len(places):
        firsts = [at[0] for at in places if at]
        found += [Problem("stage_missing", h) for h, at in zip(form.headings, places, strict=True) if not at]
        found += [Problem("stage_repeated", h) for h, at in zip(form.headings, places, strict=True) if len(at) > 1]
    if firsts != sorted(firsts):
        found.append(Problem("stage_order", " / ".join(form.headings)))
    for heading, stage in zip(form.headings, stages, strict=True):
        if stage is not None and not stage[:1].isalnum() and not _LETTER.search(stage):
            found.append(Problem("stage_empty", heading))
    listed = "" if form.candidates_in is None else stages[form.candidates_in]
    if listed:
        candidates = list_candidates(listed)
        if len(candidates) < form.min_candidates:
            detail = excerpt(listed)
            found.append(Problem("candidates_few", f"{len(candidates)} of at least {form.min_candidates}: {detail}"))
        if len(candidates) > form.max_candidates:
            found.append(Problem("candidates_many", f"{len(candidates)} of at most {form.max_candidates}"))
    return found
