"""Looking at a corpus: counts, lengths, rows as the model sees them, and the page."""

from __future__ import annotations

import json
import random
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from onereason.data.inspect.charts import histogram, length_chart, nice_step, task_chart
from onereason.data.inspect.html import POLICY, escape, render_page, write_page
from onereason.data.inspect.lengths import LengthSummary, compute_lengths, measure, supervise
from onereason.data.inspect.reading import find_corpus, find_problem, iter_lines, read_lines_at
from onereason.data.inspect.render import Captions, Piece, guess_format, render_rows, split_at_items
from onereason.data.inspect.statistics import Reservoir, find_notes, read_rejections, scan_corpus, spread
from onereason.data.inspect.tables import Inspection, build_tables
from onereason.data.inspect.terminal import SUPERVISED, print_inspection, render_row
from onereason.data.rendering import RowTokenizer
from onereason.errors import DataError
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import PRESETS

V1, V2 = "<|video_begin|><s_a_1><s_b_2>", "<|video_begin|><s_a_3><s_b_4>"
P1 = "<|prod_begin|><s_a_7><s_b_0>"
EVIL = "<script>alert('pie')</script> & \"more\""


def chat(
    row_id: str, question: str, answer: str, *, mode: str = "no_think", task: str = "caption", **others: str
) -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": row_id, "task": task, "loss": "assistant", "mode": mode, **others, "messages": messages}


ROWS = [
    chat("c1", f"What is {V1}? /no_think", "A pie.", domain="video", user="ann", teacher="template"),
    chat("c2", f"What is {V2}? /no_think", "A cake.", domain="video", user="bob", teacher="template"),
    chat("c2", f"What is {V2}? /no_think", "A cake.", domain="video", user="bob", teacher="template"),
    chat("r1", f"Liked {V1}{V2}. Next? /think", f"<think>\nPies.\n</think>\n\n{P1}", mode="think",
         task="recommendation", domain="prod", user="ann"),
    chat("r2", f"Liked {V1}{V2}. Next? /think", P1, mode="think", task="recommendation", domain="prod"),
    chat("r3", f"Liked {V1}. Next?", "<think>x</think>" + P1, task="recommendation", domain="prod"),
    {"id": "s1", "task": "sequential", "loss": "next_items", "mode": "no_think", "text": V1 + V2},
    {"id": "b1", "task": "balance", "loss": "none", "mode": "no_think", "text": "liked the video"},
]  # fmt: skip


def write_lines(path: Path, rows: list[dict], *raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b"".join(raw))
    return path


@pytest.fixture
def corpus(tmp_path) -> Path:
    bad = [b"{broken\n", b"\n", b"[1]\n", b'{"id": "x", "task": "t", "loss": "all", "mode": "fast", "text": "a"}\n']
    return write_lines(tmp_path / "corpus" / "rows.jsonl", ROWS, *bad)


@pytest.fixture(scope="module")
def catalog(words) -> Catalog:
    """V1 and another item share a sid; P1 is in the catalog without a caption; V2 is not in it."""
    codes = np.array([[1, 2], [1, 2], [7, 0]])
    return Catalog(
        words.format,
        ["i1", "i2", "i3"],
        codes,
        ["video", "video", "prod"],
        ["a red pie", EVIL, ""],
        np.array([1, 5, 0]),
    )


def scan(path: Path, **options):
    return scan_corpus(path, **({"num_measured": 100, "num_shown": 100, "seed": 0} | options))


# -- reading and counting -------------------------------------------------------------------------------------------


def test_every_row_is_counted_by_its_keys(corpus):
    found = scan(corpus)
    assert found.rows == 8
    assert found.by["task"] == {"caption": 3, "recommendation": 3, "sequential": 1, "balance": 1}
    assert found.by["mode"] == {"no_think": 6, "think": 2}
    assert found.by["domain"] == {"video": 3, "prod": 3, "-": 2}
    assert found.by["teacher"] == {"template": 3, "-": 5}
    assert found.by["loss"] == {"assistant": 6, "next_items": 1, "none": 1}
    assert found.cells["recommendation", "think"] == 2
    assert found.think_share == 0.25
    assert (found.users, found.rows_with_user) == (2, 4)


def test_repeats_are_rows_that_an_earlier_row_equals(corpus):
    found = scan(corpus)
    assert found.repeated_ids == 1  # the second c2
    assert found.repeated_prompts == 2  # the second c2, and r2 asks what r1 asked
    assert found.repeated_rows == 1  # the second c2; r2 answers otherwise


def test_malformed_lines_are_counted_with_their_number_and_reason(corpus):
    found = scan(corpus)
    assert found.malformed.counts == {"not_json": 1, "not_an_object": 1, "bad_mode": 1}
    assert found.malformed.examples["not_an_object"] == ["line 11: expected an object, got list"]
    assert found.malformed.examples["bad_mode"] == ["line 12: mode is 'fast'; use one of no_think, think"]
    assert found.malformed.examples["not_json"][0].startswith("line 9: not valid JSON (")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": ""}, "bad_id"),
        ({"id": None}, "bad_id"),
        ({"task": "Caption"}, "bad_task"),
        ({"loss": "some"}, "bad_loss"),
        ({"domain": 3}, "bad_domain"),
        ({"user": ["ann"]}, "bad_user"),
        ({"teacher": ""}, "bad_teacher"),
        ({"text": "both"}, "bad_content"),
        ({"messages": []}, "bad_content"),
        ({"messages": [{"role": "user", "content": None}]}, "bad_content"),
        ({"id": "x: mode is", "task": "?"}, "bad_task"),
    ],
)
def test_what_keeps_a_value_from_being_a_row(change, code):
    assert find_problem(ROWS[0]) is None
    assert find_problem({**ROWS[0], **change})[0] == code


def test_filters_keep_rows_out_of_every_count(corpus):
    found = scan(corpus, task="recommendation", mode="think")
    assert (found.rows, found.filtered) == (2, 6)
    assert found.by["domain"] == {"prod": 2}
    assert [number for number, _ in found.measured] == [4, 5]
    with pytest.raises(DataError, match=r"holds 8 row\(s\), none of task 'persona'; leave the filter out"):
        scan(corpus, task="persona")


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"empty\.jsonl is empty: it holds no row"):
        scan(write_lines(tmp_path / "empty.jsonl", []))
    with pytest.raises(DataError, match=r"holds no row: 2 malformed line\(s\), e.g. line 1: expected an object"):
        scan(write_lines(tmp_path / "bad.jsonl", [], b"1\n", b"2\n"))


def test_contradictions_of_trace_switch_and_mode(corpus):
    assert [find_notes(row) for row in ROWS] == [
        [],
        [],
        [],
        [],
        ["think_row_without_trace"],
        ["no_think_row_with_trace", "no_switch_in_prompt"],
        [],
        [],
    ]
    assert find_notes(chat("x", "What? /think", "A pie.")) == ["switch_contradicts_mode"]
    assert scan(corpus).notes.examples["no_switch_in_prompt"] == ["line 6: r3"]


def test_lines_are_found_again_at_their_places(corpus):
    places = [(line.number, line.offset) for line in iter_lines(corpus) if line.row is not None]
    assert [line.row["id"] for line in read_lines_at(corpus, places[::-1])] == [row["id"] for row in ROWS[::-1]]


def test_a_mark_before_utf8_and_half_an_emoji_are_read(tmp_path):
    row = {**ROWS[0], "teacher": "x"}
    text = json.dumps(row).replace('"teacher": "x"', '"teacher": "\\ud83d"')  # half of a surrogate pair
    path = write_lines(tmp_path / "rows.jsonl", [], b"\xef\xbb\xbf" + text.encode() + b"\n")
    assert scan(path).by["teacher"] == {"\ufffd": 1}


# -- samples --------------------------------------------------------------------------------------------------------


def test_a_reservoir_keeps_every_place_equally_often():
    kept = Counter()
    for seed in range(2000):
        reservoir = Reservoir(2, random.Random(seed))
        for number in range(5):
            reservoir.offer((number, 0))
        kept.update(number for number, _ in reservoir.places)
    # each of 5 places is kept with probability 2/5: 800 of 2000, standard deviation 21.9
    assert all(abs(kept[number] - 800) < 5 * 21.9 for number in range(5))


def test_shown_rows_go_round_the_tasks_and_modes():
    samples = {}
    for place, (cell, size) in enumerate({("a", "think"): 3, ("a", "no_think"): 1, ("b", "think"): 2}.items()):
        samples[cell] = Reservoir(9, random.Random(0))
        for number in range(size):
            samples[cell].offer((number, place))
    shown = spread(samples, 5, seed=3)
    assert [number for number, _ in shown] == [0, 0, 0, 1, 1]  # one of each, then the second ones of the two that have
    assert spread(samples, 5, seed=3) == shown
    assert len({tuple(spread(samples, 3, seed)) for seed in range(20)}) > 1  # the cells come in a seeded order


def test_samples_depend_on_the_seed_alone(tmp_path):
    rows = [{**ROWS[0], "id": f"c{i}"} for i in range(200)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    first = scan(path, num_measured=20, num_shown=5)
    assert (len(first.measured), len(first.shown)) == (20, 5)
    again, other = (scan(path, num_measured=20, num_shown=5, seed=seed) for seed in (0, 1))
    assert (first.measured, first.shown) == (again.measured, again.shown)
    assert first.measured != other.measured


# -- manifest -------------------------------------------------------------------------------------------------------


def test_rejections_come_from_manifest_and_file(corpus):
    manifest = {"kind": "corpus", "rejected": {"leak": 5, "short": 1}, "rejected_examples": {"short": [{"id": "u9"}]}}
    corpus.with_name("manifest.json").write_text(json.dumps(manifest))
    lines = [{"id": f"u{i}", "reason": "leak", "detail": "names the target"} for i in range(5)]
    write_lines(corpus.with_name("rejected.jsonl"), lines)
    for place in (corpus, corpus.parent):
        files = find_corpus(place)
        reasons = read_rejections(files)
        assert files.rows == corpus
        assert reasons.counts == {"leak": 5, "short": 1}
        assert reasons.examples == {"leak": [f"u{i}: names the target" for i in range(3)], "short": ["u9"]}


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no rows\.jsonl"):
        find_corpus(tmp_path)
    with pytest.raises(DataError, match="found nothing"):
        find_corpus(tmp_path / "none.jsonl")
    write_lines(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object, got list"):
        find_corpus(tmp_path)


# -- lengths --------------------------------------------------------------------------------------------------------


def test_percentiles_are_lengths_that_occur():
    # of 1 .. 20, at least half are <= 10 and at least 95 % (19 of 20) are <= 19
    assert LengthSummary.of(np.arange(1, 21)) == LengthSummary(10.5, 10, 19, 20)
    assert LengthSummary.of(np.array([7])) == LengthSummary(7.0, 7, 7, 7)


def test_lengths_of_prompt_supervised_and_whole(words):
    def count(text: str) -> int:
        return len(words.tokenizer(text, add_special_tokens=False)["input_ids"])

    several = chat("m", "One?", "Two.")
    several["messages"] += [{"role": "user", "content": "The user?"}, {"role": "assistant", "content": "Four."}]
    rows = [
        ROWS[0],
        ROWS[3],
        ROWS[6],
        ROWS[7],
        several,
        {**several, "loss": "all", "messages": several["messages"][:1]},
    ]
    packed = RowTokenizer(words.tokenizer, words.vocabulary)(rows)
    found = compute_lengths(rows, packed, supervise(rows, packed, words.vocabulary))
    ask = f"<|im_start|>user\nWhat is {V1}? /no_think<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    think = f"<|im_start|>user\nLiked {V1}{V2}. Next? /think<|im_end|>\n<|im_start|>assistant\n"
    answer = f"<think>\nPies.\n</think>\n\n{P1}<|im_end|>"
    first = "<|im_start|>user\nOne?<|im_end|>\n"
    before = first + "<|im_start|>assistant\nTwo.<|im_end|>\n<|im_start|>user\nThe user?<|im_end|>\n"
    before += "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert found.prompt.tolist() == [count(ask), count(think), 0, 0, count(before), count(first)]
    both = count("Two.<|im_end|>") + count("Four.<|im_end|>")
    supervised = [count("A pie.<|im_end|>"), count(answer), 3, 0, both, count(first)]
    assert found.supervised.tolist() == supervised  # of V1 + V2, the second item's 3 tokens
    newline = count("\n")
    whole = [count(ask) + count("A pie.<|im_end|>") + newline, count(think) + count(answer) + newline, 6]
    whole += [count("liked the video"), count(before + "Four.<|im_end|>\n"), count(first)]
    assert found.whole.tolist() == whole


def test_lengths_are_summed_up_by_task_and_mode(words, corpus):
    found = scan(corpus)
    measured = measure(corpus, found.measured, words.tokenizer, words.vocabulary)
    assert measured.cells == [(row["task"], row["mode"]) for row in ROWS]
    cell = measured.summary(("sequential", "no_think"))
    assert cell["whole"] == LengthSummary(6.0, 6, 6, 6)
    assert cell["supervised"] == LengthSummary(3.0, 3, 3, 3)
    assert measured.summary()["whole"].max == measured.lengths.whole.max()


# -- rows as the model sees them ------------------------------------------------------------------------------------


def test_the_supervised_text_of_each_loss(words):
    rows = [
        ROWS[0],
        ROWS[3],
        {**ROWS[3], "loss": "target_items"},
        {**ROWS[3], "loss": "next_items"},
        {**ROWS[3], "loss": "none"},
        {**ROWS[0], "loss": "all"},
        ROWS[6],
    ]
    rendered = render_rows(rows, range(1, 8), words.tokenizer, words.vocabulary)
    asked = f"<|im_start|>user\nLiked {V1}{V2}. Next? /think<|im_end|>\n<|im_start|>assistant\n"
    answer = f"<think>\nPies.\n</think>\n\n{P1}<|im_end|>"
    caption = f"<|im_start|>user\nWhat is {V1}? /no_think<|im_end|>\n<|im_start|>assistant\n"
    caption += "<think>\n\n</think>\n\nA pie.<|im_end|>\n"
    assert [row.text for row in rendered] == [caption, *[asked + answer + "\n"] * 4, caption, V1 + V2]
    supervised = ["A pie.<|im_end|>", answer, P1, V2 + P1, "", caption, V2]
    assert [row.supervised_text for row in rendered] == supervised
    assert [row.number for row in rendered] == [1, 2, 3, 4, 5, 6, 7]
    assert rendered[3].supervised == 6  # two items of 3 tokens


def test_items_carry_their_captions(words, catalog):
    (row,) = render_rows([ROWS[3]], [4], words.tokenizer, words.vocabulary, Captions(catalog))
    noted = [(piece.text, piece.supervised, piece.caption) for piece in row.pieces if piece.caption is not None]
    assert noted == [
        (V1, False, f"{EVIL} (and 1 more under this sid)"),  # the more popular of the two
        (V2, False, "not in the catalog"),
        (P1, True, "no caption"),
    ]
    assert row.supervised_text == f"<think>\nPies.\n</think>\n\n{P1}<|im_end|>"


def test_a_pattern_cut_by_the_loss_shows_its_caption_once(words, catalog):
    half = len("<|prod_begin|>")
    stretches = [(P1[:half], False), (P1[half:], True)]
    pieces = split_at_items(stretches, words.format, Captions(catalog))
    assert pieces == [Piece(P1[:half], False), Piece(P1[half:], True, "no caption")]


def test_every_kind_of_pattern_is_seen(any_words):
    format = any_words.format
    domain = "video" if "video" in format.domains else "*"
    pattern = format.render((1, 2), domain)
    known = Catalog(format, ["i"], np.array([[1, 2]]), [domain], ["a pie"])
    row = {"id": "r", "task": "t", "loss": "all", "mode": "no_think", "text": f"liked {pattern}."}
    (found,) = render_rows([row], [1], any_words.tokenizer, any_words.vocabulary, Captions(known))
    assert found.pieces == (Piece("liked ", True), Piece(pattern, True, "a pie"), Piece(".", True))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("<|video_begin|><s_a_1><s_b_2><s_c_8191>", "onereason"),
        ("<|sid_begin|><s_a_1><s_b_2><s_c_3><|sid_end|>", "openonerec"),
        ("<|sid_begin|><s_a_1><s_b_2><s_c_3><s_d_4><|sid_end|>", "onerec_think"),
        ("<a_1><b_2><c_3>", "minionerec"),
    ],
)
def test_the_format_is_guessed_from_the_patterns(text, name):
    assert guess_format([f"liked {text}", "no item"]) == PRESETS[name]
    assert guess_format(["no item"]) is None


# -- terminal -------------------------------------------------------------------------------------------------------


def inspect(words, corpus: Path, catalog: Catalog | None = None) -> Inspection:
    found = scan(corpus)
    lines = list(read_lines_at(corpus, found.shown))
    captions = Captions(catalog) if catalog is not None else None
    rows = render_rows([x.row for x in lines], [x.number for x in lines], words.tokenizer, words.vocabulary, captions)
    measured = measure(corpus, found.measured, words.tokenizer, words.vocabulary)
    files = find_corpus(corpus)
    return Inspection(
        corpus, found, measured, read_rejections(files), files.manifest, rows, "Tokens of a test.", catalog is not None
    )


def test_without_colours_brackets_stand_around_what_is_supervised(words, catalog):
    row = {**ROWS[3], "loss": "next_items"}
    (rendered,) = render_rows([row], [1], words.tokenizer, words.vocabulary, Captions(catalog))
    expected = (
        f"<|im_start|>user\nLiked {V1} (= {EVIL} (and 1 more under this sid))[[{V2} (= not in the catalog)]]. Next? "
        f"/think<|im_end|>\n<|im_start|>assistant\n<think>\nPies.\n</think>\n\n[[{P1} (= no caption)]]<|im_end|>\n"
    )
    text = render_row(rendered, colours=False)
    assert text.plain == expected
    assert not text.spans


def test_with_colours_the_supervised_span_is_highlighted(words, catalog):
    (rendered,) = render_rows([ROWS[3]], [1], words.tokenizer, words.vocabulary, Captions(catalog))
    text = render_row(rendered, colours=True)
    highlighted = "".join(text.plain[span.start : span.end] for span in text.spans if span.style == SUPERVISED)
    assert highlighted == f"<think>\nPies.\n</think>\n\n{P1}<|im_end|>"


def test_control_characters_are_not_obeyed(words):
    row = {"id": "r\x1b[2J", "task": "t", "loss": "all", "mode": "no_think", "text": "a\x1b[31mb\rc\x07"}
    (rendered,) = render_rows([row], [1], words.tokenizer, words.vocabulary)
    assert render_row(rendered, colours=False).plain == "[[a\\x1b[31mb\\x0dc\\x07]]"


def test_the_terminal_prints_the_tables_figures(words, corpus, catalog):
    console = Console(width=160, no_color=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    inspection = inspect(words, corpus, catalog)
    print_inspection(inspection, console, 2)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["rows", "8"] in lines
    assert ["share", "of", "think", "rows", "25.0", "%"] in lines
    assert ["recommendation", "3", "2", "1", "66.7", "%"] in lines
    assert ["sequential", "no_think", "1", "prompt", "0.0", "0", "0", "0"] in lines
    assert sum(line[:1] == ["line"] and "tokens," in line for line in lines) == 2  # two rows are shown


# -- page -----------------------------------------------------------------------------------------------------------

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Reads a page: tags balance, tables as text, articles with their text, marked text and captions."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[tuple[str, dict]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.articles: list[dict] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts = 0
        self.bar_titles: list[str] = []
        self.heading = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append((tag, given))
        self.scripts += tag == "script"
        if tag == "h3":
            self.heading = ""
        elif tag == "table":
            self.tables[self.heading] = []
        elif tag == "tr":
            self.tables[self.heading].append([])
        elif tag in ("td", "th"):
            self.tables[self.heading][-1].append("")
        elif tag == "article":
            self.articles.append({**given, "text": "", "marked": "", "captions": []})
        elif given.get("class") == "item":
            self.articles[-1]["captions"].append(given["data-caption"])

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open[-1][0] == tag, (tag, self.open[-3:])
            self.open.pop()

    def handle_data(self, data):
        tags = [tag for tag, _ in self.open]
        if "h3" in tags:
            self.heading += data
        if "td" in tags or "th" in tags:
            self.tables[self.heading][-1][-1] += data
        if "svg" in tags and tags[-1] == "title":
            self.bar_titles.append(data)
        if any(given.get("class") == "text" for _, given in self.open):
            self.articles[-1]["text"] += data
            self.articles[-1]["marked"] += data if "mark" in tags else ""


def test_the_page_holds_the_tables_figures(words, corpus, catalog):
    inspection = inspect(words, corpus, catalog)
    page = Page(render_page(inspection))
    tables = build_tables(inspection)
    for table in tables:
        assert page.tables[table.title] == [list(table.columns), *map(list, table.rows)]
    assert list(page.tables) == [table.title for table in tables]
    assert page.tables["Rows by task and mode"][-1] == ["all", "8", "2", "6", "25.0 %"]


def test_the_page_shows_the_rows_whole_with_the_supervised_part_marked(words, corpus, catalog):
    inspection = inspect(words, corpus, catalog)
    page = Page(render_page(inspection))
    rows = sorted(inspection.shown, key=lambda row: (row.row["task"], row.row["mode"], row.number))
    assert [article["text"] for article in page.articles] == [row.text for row in rows]
    assert [article["marked"] for article in page.articles] == [row.supervised_text for row in rows]
    assert [(a["data-task"], a["data-mode"]) for a in page.articles] == [(r.row["task"], r.row["mode"]) for r in rows]
    assert page.articles[-1]["captions"] == [f"{EVIL} (and 1 more under this sid)", "not in the catalog"]


def test_nothing_in_a_row_becomes_markup(words, tmp_path, catalog):
    row = chat(EVIL, f"What is {V1}? {EVIL}", f"<b>{EVIL}</b> \x00", user=EVIL, teacher=EVIL)
    (tmp_path / "a<b>").mkdir()
    corpus = write_lines(tmp_path / "a<b>" / "rows.jsonl", [row])
    manifest = {"config": {EVIL: EVIL}, "rejected": {EVIL: 1}}
    corpus.with_name("manifest.json").write_text(json.dumps(manifest))
    text = render_page(inspect(words, corpus, catalog))
    page = Page(text)
    assert page.scripts == 1  # the page's own
    assert "<script>alert" not in text
    assert page.articles[0]["marked"] == f"<b>{EVIL}</b> \u2400<|im_end|>"
    assert page.tables["Settings of the corpus"][1] == [EVIL, EVIL]
    assert escape("\x1b\x7f\t\n") == "\u241b\u2421\t\n"


def test_the_page_loads_nothing(words, corpus, catalog):
    text = render_page(inspect(words, corpus, catalog))
    page = Page(text)
    names = {name for name, _ in page.attributes}
    assert not names & {"src", "href", "srcset", "action", "xlink:href"}
    assert ("content", POLICY) in page.attributes
    assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")


def test_the_page_is_written_whole(words, corpus, tmp_path):
    out = tmp_path / "page.html"
    write_page(inspect(words, corpus), out)
    assert Page(out.read_text("utf-8")).articles[0]["captions"] == []
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "page.html"}


def test_charts_say_their_figures(words, corpus):
    inspection = inspect(words, corpus)
    titles = Page(task_chart(inspection.scan)).bar_titles
    assert titles[:2] == ["caption, no_think: 3 rows", "recommendation, think: 2 rows"]
    assert "recommendation, no_think: 1 rows" in titles
    titles = Page(length_chart(inspection.measured)).bar_titles
    assert "sequential, no_think: 3.0 supervised tokens on average" in titles
    assert "sequential, no_think: 95 % of rows have at most 6 tokens" in titles
    counts = [int(title.rsplit(" ", 2)[1]) for title in Page(histogram(inspection.measured)).bar_titles]
    assert sum(counts) == 8  # every row stands in one bar


@pytest.mark.parametrize(("least", "step"), [(0.1, 1), (1, 1), (1.1, 2), (3, 5), (6, 10), (11, 20), (400, 500)])
def test_nice_steps(least, step):
    assert nice_step(least) == step
