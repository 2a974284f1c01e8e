"""Pre-training rows by hand, granularity by granularity."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data_builders.build_pretraining import PretrainingSource, count_rows
from data_builders.pretraining.balance import BalanceSection, balance_row
from data_builders.pretraining.item import ItemSection
from data_builders.pretraining.material import Material
from data_builders.pretraining.relational import RelationalSection, RelationOptions, find_pairs
from data_builders.pretraining.token import TokenSection, caption_words, count_caption_words
from data_builders.pretraining.user import UserSection
from onereason.data.chat import check_row
from onereason.data.prompt_sets import load_prompt_set
from onereason.itemic.format import load_format

FORMAT = load_format("onereason", 2, 8)


def material(codes, themes, histories=(), domains=None, format=FORMAT, **changes) -> Material:
    """Items with these codes and themes, all videos unless said otherwise, and users with these histories."""
    number = len(codes)
    domains = domains or ["video"] * number
    fields = {
        "format": format,
        "item_ids": [f"i{i}" for i in range(number)],
        "domains": domains,
        "patterns": [format.render(c, d) for c, d in zip(codes, domains, strict=True)],
        "codes": np.array(codes),
        "captions": [f"caption {i}" for i in range(number)],
        "themes": themes,
        "traits": [{}] * number,
        "trait_nouns": {"brand": "brand", "style": "style"},
        "user_ids": [f"u{u}" for u in range(len(histories))],
        "items": np.array([i for history in histories for i in history], dtype=np.int64),
        "offsets": np.cumsum([0, *map(len, histories)]),
        "timestamps": None,
        "searches": None,
        "prompts": load_prompt_set("pretraining"),
        "min_lift": 1.5,
        "seed": 0,
    }
    return Material(**fields | changes)


def rows_of(section) -> list[dict]:
    rows: list[dict] = []
    for unit in range(section.num_units):
        section.rows_of(unit, rows, [])
    for row in rows:
        check_row(row)
    return rows


def said(row) -> str:
    """What a row says: its free text, or its last answer."""
    return row["text"] if "text" in row else row["messages"][-1]["content"]


def wordings(text_name: str, /, **fields) -> set[str]:
    return {text.format(**fields) for text in load_prompt_set("pretraining").variants(text_name)}


# -- token ----------------------------------------------------------------------------------------------------------


def test_words_of_captions():
    assert caption_words("A Red tea-pot, red 500 ml of it") == {"red", "tea-pot"}
    assert caption_words("红茶壶, a cup") == {"红茶", "茶壶", "cup"}
    names, holds = count_caption_words(["red tea", "red cup", "blue tea", "red tea"], min_items=2)
    assert names == ["red", "tea"] and holds.toarray().tolist() == [[1, 1], [1, 0], [0, 1], [1, 1]]


def test_prefixes_by_hand():
    """Items 0 to 3 begin with code 0: tea, tea, tea, tents; item 4 alone with code 1; items 5 to 7 with code 2."""
    codes = [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [2, 0], [2, 1], [2, 2]]
    themes = ["tea", "tea", "tea", "tents", "tents", "", "", ""]
    texts = ["cosy leaf", "cosy leaf", "cosy leaf", "canvas", "cosy canvas", "cosy", "", ""]
    section = TokenSection(material(codes, themes), texts)
    # words of 3 texts or more: `leaf` (3 of 8) and `cosy` (5 of 8). Under code 0 each stands in 3 of 4: lift
    # 0.75 / 0.375 = 2, and 0.75 / 0.625 = 1.2, which is too little
    meaning = "about tea (75%), tents (25%), with words such as leaf (75%)"
    assert section.levels[0].meanings == [meaning, "", ""]  # one item under code 1; no themes and words under code 2
    assert section.left_out == {"prefix_without_meaning": 2, "item_without_caption": 0}
    qa, free = section.prefix_rows(0, 0)
    prefix = "<|video_begin|><s_a_0>"
    assert qa["messages"][0]["content"].removesuffix(" /no_think") in wordings(
        "token.prefix.question", prefix=prefix, nouns="videos"
    )
    fields = {"prefix": prefix, "nouns": "videos", "meaning": meaning}
    assert said(qa) in wordings("token.prefix.answer", **fields)
    assert said(free) in wordings("token.prefix.free", **fields)
    assert {k: v for k, v in qa.items() if k != "messages"} == {
        "id": f"token:prefix:{prefix}:qa",
        "task": "token",
        "loss": "assistant",
        "mode": "no_think",
        "teacher": "template",
    }
    assert free["id"] == f"token:prefix:{prefix}:free" and free["loss"] == "all"


def test_parts_by_hand():
    codes = [[0, 0], [0, 1], [0, 2], [1, 3]]
    section = TokenSection(material(codes, ["tea", "tea", "tea", ""]), [""] * 4)
    qa, free = section.item_rows(1)
    lines = ["<s_a_0> stands for videos about tea (100%).", "With <s_b_1> it is this video: caption 1"]
    assert said(qa).split("\n") == lines
    opening, *rest = said(free).split("\n")
    assert rest == lines
    assert opening in wordings("token.parts.free", pattern="<|video_begin|><s_a_0><s_b_1>", noun="video")
    # the prefix of item 3 says nothing of its own, so its token goes with the last one
    assert said(section.item_rows(3)[0]) == "With <s_a_1><s_b_3> it is this video: caption 3"


def test_prefixes_are_told_apart_by_domain_where_tokens_do():
    codes, themes = [[0, 0], [0, 1], [0, 2]] * 2, ["tea"] * 3 + ["tents"] * 3
    domains = ["video"] * 3 + ["prod"] * 3
    told = TokenSection(material(codes, themes, domains=domains), [""] * 6).levels[0].meanings
    assert told == ["about tea (100%)", "about tents (100%)"]
    plain = load_format("minionerec", 2, 8)
    section = TokenSection(material(codes, themes, domains=domains, format=plain), [""] * 6)
    assert section.levels[0].meanings == ["about tea (50%), tents (50%)"]
    assert said(section.prefix_rows(0, 0)[1]) in wordings(
        "token.prefix.free", prefix="<a_0>", nouns="items", meaning="about tea (50%), tents (50%)"
    )


def test_one_level_has_no_prefix():
    section = TokenSection(material([[0], [1]], ["tea", "tea"], format=load_format("onereason", 1, 8)), ["", ""])
    assert section.num_units == 0 and section.left_out == {"prefix_without_meaning": 0, "item_without_caption": 2}


# -- item -----------------------------------------------------------------------------------------------------------


def test_perspectives_by_hand():
    traits = [{"brand": "Kilnfield", "style": "bold"}, {"brand": "Kilnfield"}, {}, {}]
    section = ItemSection(material([[i, 0] for i in range(4)], ["tea", "", "tents", ""], traits=traits))
    found = section.perspectives(0)
    assert found["audience"] == "people who are into tea, above all those who look for brand Kilnfield"
    assert found["appeal"] == "tea, and with it brand Kilnfield" and found["style"] == "bold"
    assert found["dislike"] == "whoever does not care for tea, or wants another brand than Kilnfield"
    assert section.perspectives(1) == {
        "audience": "people who look for brand Kilnfield",
        "appeal": "brand Kilnfield",
        "dislike": "whoever wants another brand than Kilnfield",
    }
    assert section.perspectives(2) == {
        "audience": "people who are into tents",
        "appeal": "tents",
        "dislike": "whoever does not care for tents",
    }
    assert section.perspectives(3) == {}


def test_item_rows_by_hand():
    section = ItemSection(material([[3, 4]], ["tea"], captions=["a green leaf"]))
    rows = rows_of(section)
    kinds = ["caption", "grounding", "audience", "appeal", "dislike"]
    assert [row["id"] for row in rows] == [f"item:{kind}:i0:{form}" for kind in kinds for form in ("qa", "free")]
    pattern = "<|video_begin|><s_a_3><s_b_4>"
    assert said(rows[0]) == "a green leaf" and said(rows[2]) == pattern
    assert said(rows[1]) in wordings("item.caption.free", pattern=pattern, noun="video", caption="a green leaf")
    question = rows[2]["messages"][0]["content"].removesuffix(" /no_think")
    assert question in wordings("item.grounding.question", noun="video", caption="a green leaf", pattern=pattern)
    assert all(row["domain"] == "video" for row in rows)


def test_items_without_words_are_rejected():
    section = ItemSection(material([[0, 0]], [""], captions=[""]))
    rows, rejects = [], []
    section.rows_of(0, rows, rejects)
    assert rows == [] and [(reject.id, reject.reason) for reject in rejects] == [
        ("item:caption:i0", "no_caption"),
        ("item:audience:i0", "no_attributes"),
    ]


# -- relational -----------------------------------------------------------------------------------------------------

CODES = [[i, i] for i in range(6)]
THEMES = ["tea", "tea", "tents", "trains", "", "tea"]


def pairs_of(found) -> set[tuple[int, int, str]]:
    return set(zip(found.sources.tolist(), found.targets.tolist(), found.relations, strict=True))


def test_next_pairs_by_hand():
    # 0 > 1 twice (one theme); 1 > 2 twice (tea to tents); 2 > 3 once; 3 > 4 twice (4 has no theme)
    histories = [[0, 1, 2], [0, 1, 2], [2, 3], [3, 4], [3, 4, 3, 4]]
    few = RelationOptions(min_support=2)
    found, left_out = find_pairs(material(CODES, THEMES, histories, min_lift=99.0), few)
    assert pairs_of(found) == {(0, 1, "next")}
    assert left_out == {
        "next_pair_of_too_few_users": 2,  # 2 > 3, and 4 > 3 of one user
        "next_pair_without_bridge": 2,  # 1 > 2, whose themes do not go together often enough, and 3 > 4
        "next_pair_beyond_partners": 0,
        "cross_domain_without_domains": 1,
        "search_not_logged": 1,
    }


def test_themes_that_go_together_are_a_bridge():
    # tea > tents 6 times, trains > tea 6 times: of 12 pairs, lift of tea > tents is 6 * 12 / (6 * 6) = 2
    histories = [[0, 2]] * 6 + [[3, 5]] * 6
    for min_lift, expected in ((2.0, {(0, 2, "next"), (3, 5, "next")}), (2.01, set())):
        found, _ = find_pairs(material(CODES, THEMES, histories, min_lift=min_lift), RelationOptions())
        assert pairs_of(found) == expected


def test_the_best_partners_are_kept():
    histories = [[0, 1]] * 3 + [[0, 5]] * 4
    found, left_out = find_pairs(material(CODES, THEMES, histories), RelationOptions(max_partners=1))
    assert pairs_of(found) == {(0, 5, "next")} and left_out["next_pair_beyond_partners"] == 1


def test_cross_domain_pairs_lie_inside_the_window():
    domains = ["video", "video", "prod", "prod", "prod", "prod"]
    histories = [[0, 1, 5]] * 2
    times = np.array([0, 10, 40] * 2)
    for seconds, expected in ((29, set()), (30, {(1, 5)}), (40, {(0, 5), (1, 5)})):
        some = material(CODES, THEMES, histories, domains=domains, timestamps=times)
        found = pairs_of(find_pairs(some, RelationOptions(window_seconds=seconds))[0])
        assert {(a, b) for a, b, relation in found if relation == "cross_domain"} == expected


def test_searches_by_hand():
    searches = ["first", "", "green tea", "", "tents", "again"]
    histories = [[0, 1, 2], [3, 3, 3], [], []]
    some = material(CODES, THEMES, histories, searches=searches)
    found, left_out = find_pairs(some, RelationOptions())
    # "first" follows nothing; "tents" and "again" lead from item 3 to itself
    assert pairs_of(found) == {(1, 2, "search")} and found.searches == ["green tea"]
    assert left_out["search_after_nothing_or_itself"] == 3
    section = RelationalSection(some, RelationOptions())
    qa, free = rows_of(section)
    assert "green tea" in said(qa) and said(qa).endswith(f": {some.patterns[2]}")
    assert free["id"] == "relational:search:0:i1:i2:free"


def test_a_pair_row_by_hand():
    some = material(CODES, THEMES, [[0, 1]] * 2)
    section = RelationalSection(some, RelationOptions())
    qa, free = rows_of(section)
    bridges = wordings("relational.bridge.same_theme", theme="tea")
    assert said(qa) in {f"{bridge}: {some.patterns[1]}" for bridge in bridges}
    fields = {"source": some.patterns[0], "target": some.patterns[1]}
    assert said(free) in {text for bridge in bridges for text in wordings("relational.free", bridge=bridge, **fields)}
    assert qa["messages"][0]["content"].removesuffix(" /no_think") in wordings(
        "relational.question", noun="video", source=some.patterns[0]
    )
    assert (qa["loss"], free["loss"], qa["domain"]) == ("assistant", "all", "video")


def test_a_shared_trait_is_named():
    traits = [{"brand": "Kilnfield"}, {"brand": "Kilnfield"}, *[{}] * 4]
    section = RelationalSection(material(CODES, THEMES, [[0, 1]] * 2, traits=traits), RelationOptions())
    bridges = wordings("relational.bridge.same_theme_and_trait", theme="tea", name="brand", value="Kilnfield")
    assert said(rows_of(section)[0]).partition(": ")[0] in bridges


def test_flows_go_on_to_the_best_partner_and_never_back():
    histories = [[0, 1]] * 2 + [[1, 0]] * 3 + [[1, 5]] * 2
    section = RelationalSection(material(CODES, THEMES, histories), RelationOptions())
    assert section.following == {0: [1], 1: [0, 5]}
    assert section.flow(0, 4) == [0, 1, 5] and section.flow(1, 4) == [1, 0] and section.starts == [0]
    assert section.flow(0, 1) == [0, 1]
    circle = RelationalSection(material(CODES, THEMES, [[0, 1, 5, 1]] * 2), RelationOptions())
    assert circle.following == {0: [1], 1: [5], 5: [1]} and circle.flow(0, 4) == [0, 1, 5]
    flow = [row for row in rows_of(section) if ":flow:" in row["id"]]
    assert [row["id"] for row in flow] == ["relational:flow:i0:qa", "relational:flow:i0:free"]
    lines = said(flow[0]).split("\n")
    bridges = wordings("relational.bridge.same_theme", theme="tea")
    patterns = section.material.patterns
    assert [line.rpartition(": ")[2] for line in lines] == [patterns[1], patterns[5]]
    assert {line.rpartition(": ")[0] for line in lines} <= bridges
    assert said(flow[1]).endswith("\n" + "\n".join(lines)) and "2" in flow[0]["messages"][0]["content"]


# -- user -----------------------------------------------------------------------------------------------------------


def test_grouped_by_hand():
    domains = ["video", "prod", "video", "prod", "prod", "video"]
    some = material(CODES, THEMES, [[0, 1, 2, 5]], domains=domains)
    qa, free = UserSection(some).grouped_rows(0, [0, 1, 2, 5])
    p = some.patterns  # products: 1; videos: 0, 2, 5, the newest
    about = [turn["content"] for turn in qa["messages"]]
    assert [turn["role"] for turn in qa["messages"]] == ["user", "assistant"] * 2
    assert about[0] in wordings("user.grouped.question", nouns="products", items=p[1])
    assert about[1] in wordings("user.grouped.answer", themes="tea")
    assert about[2].removesuffix(" /no_think") in wordings("user.grouped.next", others="videos")
    assert about[3] == p[0] + p[2] + p[5] and qa["domain"] == "video"
    opening, *lines = free["text"].split("\n")
    assert lines == [f"products: {p[1]}", f"videos: {p[0]}{p[2]}{p[5]}"]
    assert opening in wordings("user.grouped.free")


def test_groups_without_themes_ask_for_the_other_group_at_once():
    some = material(CODES, [""] * 6, [[0, 1]], domains=["video", "prod"] * 3)
    qa, _ = UserSection(some).grouped_rows(0, [0, 1])
    question, answer = (turn["content"] for turn in qa["messages"])
    fields = {"nouns": "videos", "items": some.patterns[0], "others": "products"}
    assert question.removesuffix(" /no_think") in wordings("user.grouped.both", **fields)
    assert answer == some.patterns[1]
    assert UserSection(material(CODES, [""] * 6, [[0, 1]])).grouped_rows(0, [0, 1]) == []


def test_themes_of_a_group_by_frequency_then_newness():
    section = UserSection(material(CODES, THEMES, []))
    assert section._about([0, 2, 3, 1]) == "tea, trains, tents" and section._about([4]) == ""


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_interleaved_by_hand(share):
    some = material(CODES, THEMES, [[0, 1, 2]], captions=["zero", "", "two", "", "", ""])
    qa, free = UserSection(some, caption_share=share).interleaved_rows(0, [0, 1, 2])
    p = some.patterns
    shown = ("zero" if share else p[0]) + "\n" + p[1]  # item 1 has no caption; the last item stays a pattern
    assert qa["messages"][0]["content"].removesuffix(" /no_think") in wordings(
        "user.interleaved.question", history=shown, noun="video"
    )
    assert said(qa) == p[2] and qa["loss"] == "assistant"
    assert free["text"].partition("\n")[2] == f"{shown}\n{p[2]}" and free["loss"] == "all"


def test_the_share_of_captions_is_kept():
    history = list(range(6)) * 200
    some = material(CODES, THEMES, [history])
    text = UserSection(some, 2000, 0.3).interleaved_rows(0, history)[1]["text"]
    replaced = sum(line.startswith("caption") for line in text.split("\n"))
    assert 300 < replaced < 420  # 1199 draws at 0.3: 360, standard deviation 15.9


def test_chains_by_hand():
    # themes: 0, 1, 5 tea; 2 tents; 3 trains; 4 unknown
    section = UserSection(material(CODES, THEMES, []))
    assert section.chain([0, 2, 1, 3, 5], 1, 0) == [0, 1, 5]
    assert section.chain([0, 2, 1, 3, 5], 2, 0) == [0, 1, 5] and section.chain([0, 2, 1, 3, 5], 2, 1) == [2]
    assert section.chain([0, 0, 1, 0], 1, 0) == [0, 1, 0]  # an item does not follow itself
    codes = [[0, 0], [0, 1], [1, 0], [0, 2]]
    section = UserSection(material(codes, [""] * 4, []))
    assert section.chain([0, 2, 1, 3], 1, 0) == [0, 1, 3]  # by first code where no theme is known


def test_chains_follow_themes_that_go_together():
    histories = [[0, 2]] * 6 + [[3, 5]] * 6  # tea > tents and trains > tea have lift 2
    section = UserSection(material(CODES, THEMES, histories, min_lift=2.0))
    assert section.chain([3, 0, 2, 1], 1, 0) == [3, 0, 2]  # tents > tea does not
    section = UserSection(material(CODES, THEMES, histories, min_lift=2.1))
    assert section.chain([3, 0, 2, 1], 1, 0) == [3]


def test_a_chain_row_by_hand():
    some = material(CODES, THEMES, [[0, 1, 5]])
    qa, free = UserSection(some).chain_rows(0, [0, 1, 5])
    p = some.patterns
    assert said(qa) == p[5] and (qa["loss"], free["loss"]) == ("assistant", "next_items")
    assert qa["messages"][0]["content"].removesuffix(" /no_think") in wordings("user.chain.question", items=p[0] + p[1])
    opening, _, items = free["text"].partition("\n")
    assert opening in wordings("user.chain.free") and items == p[0] + p[1] + p[5]


def test_histories_that_give_nothing_are_rejected():
    some = material(CODES, THEMES, [[0, 1], [4, 2, 3]], captions=[""] * 6)
    section = UserSection(some)
    rows, rejects = [], []
    for unit in range(2):
        section.rows_of(unit, rows, rejects)
    assert {(reject.id, reject.reason) for reject in rejects} == {
        ("user:u0", "history_too_short"),
        ("user:interleaved:u1", "no_caption"),
        ("user:chain:u1", "no_chain"),
    }
    assert {row["user"] for row in rows} == {"u1"}


# -- balance --------------------------------------------------------------------------------------------------------


def test_balance_rows_take_no_loss():
    assert balance_row({"text": "Rain falls."}, "a") == {
        "id": "a",
        "task": "balance",
        "loss": "none",
        "mode": "no_think",
        "text": "Rain falls.",
    }
    row = balance_row({"question": "2 + 2?", "answer": "4"}, "b")
    assert (row["task"], row["loss"], said(row)) == ("balance", "none", "4")
    assert balance_row({"text": " "}, "c") == "no_text" and balance_row({"x": 1}, "d") == "unknown_shape"
    for made in (balance_row({"text": "Rain."}, "a"), row):
        check_row(made)


def test_balance_goes_round_and_rejects_bad_lines(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": "two"}\nbroken\n', "utf-8")
    section = BalanceSection.sample(path, 7, 0)
    rows, rejects = [], []
    for unit in range(section.num_units):
        section.rows_of(unit, rows, rejects)
    assert Counter([*(row["text"] for row in rows), *(r.reason for r in rejects)]).most_common()[0][1] == 3
    assert sorted(Counter([*(row["text"] for row in rows), *(r.reason for r in rejects)]).values()) == [2, 2, 3]
    ids = [row["id"] for row in rows] + [reject.id for reject in rejects]
    assert len(set(ids)) == 7


# -- sections together -------------------------------------------------------------------------------------------------


def test_rows_are_counted_by_a_sample():
    some = material(CODES, THEMES, [])
    assert count_rows(ItemSection(some)) == len(rows_of(ItemSection(some))) == 54  # 5 x 10, and 4 without a theme
    assert count_rows(ItemSection(some), sample=2) == 60  # items 0 and 3 give 10 rows each


def test_a_source_cuts_units_anywhere():
    some = material(CODES, THEMES, [[0, 1, 5]] * 3)
    source = PretrainingSource([ItemSection(some), UserSection(some)])
    rows, rejects = source.build(0, source.num_units)
    for cut in range(source.num_units + 1):
        first, second = source.build(0, cut), source.build(cut, source.num_units)
        assert first[0] + second[0] == rows and first[1] + second[1] == rejects
