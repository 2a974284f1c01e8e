"""Coarse captions: what is dropped, what the capacity leaves, in English and Chinese."""

# ruff: noqa: RUF001

from __future__ import annotations

import json
from math import log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onereason.cognition.captions import (
    CaptionVocabulary,
    ambiguous_captions,
    build_vocabulary,
    clean_caption,
    code_bits,
    end_cut,
    split_runs,
    tidy,
)
from onereason.itemic.format import load_format
from tests.cognition_worlds import simulated

# -- cleaning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Cocoa Butter with Vitamin-E, as it is.", "Cocoa Butter with Vitamin-E, as it is."),
        # dates and moments
        ("Released on 2021-05-03 in Paris", "Released in Paris"),
        ("Live on May 3rd, 2021: a concert", "Live: a concert"),
        ("Live on the 3rd of March 2020, a concert", "Live, a concert"),
        ("A song, in October 2019 and later", "A song, and later"),
        ("Best of 2018 dances", "Best of dances"),
        ("Starts at 20:30 pm, be quick", "Starts, be quick"),
        ("You may dance", "You may dance"),
        # sums of money
        ("A lamp for only $12.99 today", "A lamp today"),
        ("Just 20 dollars a piece", "a piece"),
        # sizes, counts, model numbers, ids
        ("Conditioner, (18 fl oz) (532 ml) (Pack of 3)", "Conditioner"),
        ("Spray 1.7 oz. for Unisex", "Spray for Unisex"),
        ("Blend for Women - 1/3 Fl Oz.", "Blend for Women"),
        ("Pro GF 1505 1300 Watt Hair Dryer B004756YJA", "Pro GF Hair Dryer"),
        ("2-in-1 Shampoo, SPF 20-Créme, E55", "Shampoo, SPF"),
        ("100% pure, 3x longer", "pure, longer"),
        # links, handles, tags, pictures
        ("Watch https://a.b/c?d=1 or www.x.org/y now", "Watch or now"),
        ("Mail me@x.com, see example.com/shop", "Mail, see"),
        ("Nails by @mary_rose #nails #red_hot yes", "Nails by yes"),
        ("So nice ❤️😀 [heart] OPI(TM) Red®", "So nice OPI Red"),
        # noise of OCR and ASR
        ("SOOOO GOOD!!! really???", "so good! really?"),
        ("sooooo good ......", "so good."),
        ("well well well, the the end", "well, the end"),
        ("GUERLAIN SHALIMAR by OPI, ADIDAS", "guerlain shalimar by OPI, adidas"),
        ("*~ red ~* | blue ___ //", "red blue"),
        # loose ends
        ("A cup for 2", "A cup"),
        ("(  ) cup , and tea .", "cup, and tea."),
        ("", ""),
        ("12345 #deal", ""),
    ],
)
def test_english(text, cleaned):
    assert clean_caption(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("晚饭后，运动一下！", "晚饭后，运动一下！"),
        ("公路1995年9月3日建成通车", "公路建成通车"),
        ("８月１６号晚上８点开播", "晚上开播"),
        ("2020年高考加油", "高考加油"),
        ("这件只要99元，快来", "这件，快来"),
        ("全场￥19.9包邮，一百块钱三件", "全场包邮，三件"),
        ("76岁老汉吃白皮拉面", "老汉吃白皮拉面"),
        ("5秒钟你能回答出来吗？", "你能回答出来吗？"),
        ("第12集 大结局", "大结局"),
        ("公路全长522公里。", "公路全长。"),
        ("好看#街拍# #穿搭 @快手时尚(O40300097)", "好看"),
        ("看哭！！！哈哈哈哈……", "看哭！哈"),
        ("最🔥的 早^_^", "最 的 早"),
        ("找糖吧（视频来源：@暴躁的雪梨）", "找糖吧 视频来源"),
        ("总有一天你会放下 带上爱", "总有一天你会放下 带上爱"),
    ],
)
def test_chinese(text, cleaned):
    assert clean_caption(text) == cleaned


def test_a_known_price_level_stands_for_the_first_sum():
    assert clean_caption("A lamp at $12.99, was $20.", "low price") == "A lamp low price, was."
    assert clean_caption("这件只要99元，快来", "低价") == "这件 低价，快来"
    assert clean_caption("A lamp", "low price") == "A lamp"


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab cdE .,!?-()#@$元年月日号第一二个3 7９：:/“”《》的是好😀\n"), max_size=30))
def test_nothing_is_left_to_drop(text):
    cleaned = clean_caption(text)
    assert not any(c.isdecimal() for c in cleaned) and "#" not in cleaned and "@" not in cleaned
    assert tidy(cleaned) == cleaned == " ".join(cleaned.split())


# -- capacity -------------------------------------------------------------------------------------------------------

TEAS = ("red tea", "red tea pot", "red cup", "green tea", "green cup", "blue cup", "blue pot", "tea pot", "teal")
"""9 captions: tea 4, red, pot and cup 3, green and blue 2; "red tea" and "tea pot" stand in 2."""


def test_words_and_pairs_tell_what_they_narrow_down():
    vocabulary = build_vocabulary(TEAS, 2)
    counts = {"tea": 4, "red": 3, "pot": 3, "cup": 3, "green": 2, "blue": 2}
    assert vocabulary.word_bits == pytest.approx({word: log2(9 / count) for word, count in counts.items()})
    # 2 of the 3 captions with "red" go on with "tea"; 2 of the 4 with "tea" go on with "pot".
    assert vocabulary.pair_bits == pytest.approx({("red", "tea"): log2(3 / 2), ("tea", "pot"): log2(4 / 2)})
    assert set(build_vocabulary(TEAS, 1).word_bits) == {*counts, "teal"}


@pytest.mark.parametrize(
    ("caption", "bits", "coarse"),
    [
        # red log2(9/3) + tea log2(3/2) + pot log2(4/2) = log2(9) = 3.17 bits
        ("red tea pot", 3.2, "red tea pot"),
        ("red tea pot", 3.1, "red tea"),
        ("Red, tea pot", 3.2, "Red, tea"),  # not in a row: tea alone is log2(9/4), with pot 3.75 bits
        ("red tea red tea red", 2.2, "red tea red tea red"),  # what stands there already tells nothing
        ("red tea red tea red", 2.1, "red"),
        ("teal tea", 5, "tea"),
        ("teal", 5, ""),
        ("blue tea", 1.5, "tea"),  # blue alone is log2(9/2) = 2.17 bits
        ("A teal. The red tea.", 5, "red tea."),
    ],
)
def test_words_are_kept_to_the_capacity(caption, bits, coarse):
    assert build_vocabulary(TEAS, 2).coarsen(caption, bits) == coarse


def test_a_cut_caption_ends_with_a_sentence_that_keeps_half_of_it():
    bits = dict.fromkeys(("tea", "red", "cup", "pot", "green"), 1.0)
    vocabulary = CaptionVocabulary(bits, {})
    assert vocabulary.coarsen("Red tea. Green cup pot", 3) == "Red tea."
    assert vocabulary.coarsen("Tea. Green red cup pot", 4) == "Tea. Green red cup"
    assert vocabulary.coarsen("Red tea green cup pot", 9, max_chars=9) == "Red tea"
    assert vocabulary.coarsen("Red tea green cup pot", 9, max_chars=13) == "Red tea green"


@pytest.mark.parametrize(
    ("text", "whole", "ended"),
    [
        # a phrase was cut in two
        ("This clip shows skincare in a detailed", False, "This clip shows skincare"),
        ("The host shows the red", False, "The host shows"),
        ("A brush for your face", False, "A brush"),
        ("Red tea, green cup, blue", False, "Red tea, green cup"),  # a clause ends behind 18 of 24 characters
        ("Red tea, green cup", False, "Red tea, green cup"),  # behind 7 of 18
        ("Red tea", False, "Red tea"),
        ("The red", False, "The red"),  # nothing would be left
        ("In a red", False, "In a red"),
        # one was not
        ("This clip shows skincare in a way", True, "This clip shows skincare in a way"),
        ("Red tea, green cup, blue", True, "Red tea, green cup, blue"),
        # function words never end a text
        ("Join a broadcast about", True, "Join a broadcast"),
        ("Red tea, and with the", True, "Red tea"),
        ("About the", True, "About the"),
    ],
)
def test_a_cut_text_ends_with_a_phrase(text, whole, ended):
    assert end_cut(text, whole) == ended


@pytest.mark.parametrize(
    ("caption", "words", "coarse"),
    [
        # every new word tells one bit, so the first `words` words are kept
        ("This clip shows tea in a red way. Cup.", 7, "This clip shows tea"),
        ("This clip shows tea in a red way. Cup.", 8, "This clip shows tea in a red way."),
        ("This clip shows tea in a red of gold", 7, "This clip shows tea in a red"),  # what follows opens a phrase
        ("This clip shows tea in a red, gold", 7, "This clip shows tea in a red"),
        ("Join a red clip about tea", 5, "Join a red clip"),
        ("Tea, red. About gold cups", 3, "Tea, red."),  # without the word, a sentence ends
        ("Red tea, gold and blue cups", 4, "Red tea, gold"),
        ("Red tea, gold cups and", 3, "Red tea, gold"),
        ("Red gold tea and blue cups, pots", 6, "Red gold tea and blue cups"),
        ("Red gold tea cups, blue pots", 5, "Red gold tea cups"),  # 17 of 23 characters
        ("Tea in a red RARE of gold", 5, "Tea"),  # the noun of the phrase is left out
        ("e.l.f. red tea cups", 5, "e.l.f. red tea"),  # initials end no sentence
        ("Like the red", 2, "Like"),  # something is left
        ("红茶 in a red way", 4, "红茶"),
    ],
)
def test_a_cut_caption_does_not_end_within_a_phrase(caption, words, coarse):
    vocabulary = CaptionVocabulary({word: 1.0 for run in split_runs(caption) for word in run if word != "rare"}, {})
    assert vocabulary.coarsen(caption, words) == coarse


def test_captions_of_the_simulated_world_end_with_a_phrase():
    captions = [clean_caption(caption) for caption in simulated().facts.captions]
    vocabulary = build_vocabulary(captions)
    for bits in (10, 15, 18, 24, 30, 39):
        for caption in captions:
            coarse = vocabulary.coarsen(caption, bits)
            rest = caption[len(coarse) :]
            assert caption.startswith(coarse) and coarse
            *_, before, last = ["", *coarse.lower().rstrip(".").split()]
            assert last not in {"a", "the", "in", "of", "and", "with", "about", "for", "from", "on", "to"}, coarse
            # behind an article stands no lone adjective: what it belongs to would have followed
            alone = before in {"a", "the"} and rest[:1] == " " and rest.split()[0] not in {"and", "of", "with", "for"}
            assert not alone, (coarse, rest)


def test_chinese_is_kept_by_the_clause():
    bits = dict.fromkeys("红绿茶好喝杯子", 2.0)
    vocabulary = CaptionVocabulary(bits, {("红", "茶"): 0.5, ("好", "喝"): 0.0})
    assert vocabulary.coarsen("红茶好喝，绿杯子", 4.5) == "红茶好喝"  # 2 + 0.5 + 2 + 0
    assert vocabulary.coarsen("红茶好喝，绿杯子", 10.5) == "红茶好喝，绿杯子"  # and 2 + 2 + 2
    assert vocabulary.coarsen("红茶好喝，绿杯子", 10.4) == "红茶好喝"
    assert vocabulary.coarsen("红茶好喝，绿杯子", 1) == "红茶好喝"  # the first clause stays
    assert vocabulary.coarsen("罕茶好喝，绿杯子", 9) == "绿杯子"  # a rare character takes its clause with it
    assert vocabulary.coarsen("红茶好喝", 9, max_chars=2) == "红茶"


def test_the_capacity_of_codes():
    assert code_bits(load_format("onereason", 3, 256)) == 24
    assert code_bits(load_format("onereason", 2, 8)) == 6


def test_runs_of_words():
    assert split_runs("Red tea, L'Oréal; 红茶 mug") == [["red", "tea"], ["l'oréal"], ["红", "茶", "mug"]]


def test_captions_of_several_patterns():
    assert ambiguous_captions(["a", " a ", "b", "b", "c"], ["1", "2", "3", "3", "4"]) == {"a"}


# -- real captions --------------------------------------------------------------------------------------------------


def test_titles_of_beauty(shared_dir):
    lines = (shared_dir / "data/beauty/items.jsonl").read_text("utf-8").splitlines()
    cleaned = [clean_caption(title) for line in lines if (title := json.loads(line)["title"])]
    vocabulary = build_vocabulary(cleaned)
    coarse = [vocabulary.coarsen(caption, 32) for caption in cleaned]
    assert sum(map(bool, coarse)) > 0.99 * len(coarse)
    for caption in coarse:
        words = [word for run in split_runs(caption) for word in run]
        assert not any(map(str.isdecimal, caption)) and len(caption) <= 200
        assert set(words) <= set(vocabulary.word_bits) | {"s"}


def test_captions_of_kuairec(shared_dir):
    text = (shared_dir / "data/kuairec/kuairec_caption_category.csv").read_bytes().decode("utf-8")
    captions = [line.partition("UNKNOWN,")[2].partition(",")[0] for line in text.split("\n")]  # those in no quotes
    captions = [caption for caption in captions if caption and '"' not in caption]
    cleaned = [clean_caption(caption) for caption in captions]
    assert len(captions) > 5000 and not any(set("#@0123456789🔥❤") & set(caption) for caption in cleaned)
    vocabulary = build_vocabulary([caption for caption in cleaned if caption])
    kept = [coarse for caption in cleaned if (coarse := vocabulary.coarsen(caption, 39))]
    assert len(kept) > 0.95 * sum(map(bool, cleaned))
