"""Stems against plain forward passes: what a stem knows is what an unpadded row of its own tokens knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onereason.decoding import beam
from onereason.decoding.beam import beam_search, search_stems
from onereason.decoding.stems import ColumnCache, Stems, left_pad, prefill
from onereason.errors import ConfigError, ModelError
from onereason.itemic.trie import build_trie
from tests.decoding.reference import (
    FIRST_CODE,
    check_row,
    make_items,
    make_model,
    make_prompts,
    plain_forward,
    reference_search,
    unique_paths,
    with_lora,
)

PROMPTS = make_prompts([5, 9, 1])
COLUMN = 2 * 2 * 2 * 8
"""Numbers that one column of one prompt takes: keys and values, 2 layers, 2 heads, 8 dimensions."""

Texts = list[list[list[int]]]
"""The tokens `[B][N]` of every stem."""


@pytest.fixture(scope="module")
def model():
    return make_model()


def ragged(shape: tuple[int, int], counts: list[list[int]], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens `[B, N, S]` and the mask that selects the first `counts[b][n]` of each row."""
    most = max(map(max, counts))
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(1, FIRST_CODE, (*shape, most)))
    return tokens, torch.arange(most) < torch.tensor(counts)[..., None]


def extended(texts: Texts, tokens: torch.Tensor, mask: torch.Tensor) -> Texts:
    return [[text + tokens[b, n][mask[b, n]].tolist() for n, text in enumerate(row)] for b, row in enumerate(texts)]


def check_stems(model, stems: Stems, texts: Texts, rtol: float = 1e-4) -> None:
    head = model.get_output_embeddings()
    assert stems.shape == (len(texts), len(texts[0]))
    assert stems.lengths.tolist() == [[len(text) for text in row] for row in texts]
    assert stems.visible.sum(-1).tolist() == stems.lengths.tolist()
    for b, row in enumerate(texts):
        for n, text in enumerate(row):
            hidden, logits = plain_forward(model, text)
            torch.testing.assert_close(stems.hidden[b, n], hidden[-1], rtol=rtol, atol=1e-5)
            torch.testing.assert_close(head(stems.hidden[b, n]), logits[-1], rtol=rtol, atol=1e-4)


@pytest.mark.parametrize("kind", ["sdpa", "eager", "one_head", "lora", "float64"])
def test_ragged_appends_equal_plain_forward_passes(kind):
    model = {
        "sdpa": make_model,
        "eager": lambda: make_model(attn_implementation="eager"),
        "one_head": lambda: make_model(num_key_value_heads=1, num_hidden_layers=3, tie_word_embeddings=False),
        "lora": lambda: with_lora(make_model(), "q_proj", "v_proj", "down_proj"),
        "float64": lambda: make_model().double(),
    }[kind]()
    stems = prefill(model, *left_pad(PROMPTS))
    texts = [[prompt] for prompt in PROMPTS]
    check_stems(model, stems, texts)
    stems, texts = stems.fork(3), [[prompt] * 3 for prompt in PROMPTS]
    check_stems(model, stems, texts)
    for step, counts in enumerate(
        [
            [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
            [[4, 0, 2], [0, 0, 3], [1, 4, 0]],  # some stems stay as they are
            [[0, 1, 0], [0, 0, 0], [0, 0, 1]],  # a whole prompt stays as it is
            [[2, 5, 3], [5, 1, 1], [4, 4, 4]],
        ]
    ):
        tokens, mask = ragged((3, 3), counts, seed=step)
        stems, texts = stems.append(tokens, mask), extended(texts, tokens, mask)
        check_stems(model, stems, texts)
    assert [len(text) for row in texts for text in row] == [12, 12, 11, 15, 11, 14, 7, 10, 7]


def test_feed_gives_the_hidden_state_at_every_token(model):
    first, first_mask = ragged((3, 2), [[3, 0], [1, 2], [0, 3]], seed=1)
    stems = prefill(model, *left_pad(PROMPTS)).fork(2).append(first, first_mask)
    texts = extended([[prompt] * 2 for prompt in PROMPTS], first, first_mask)
    tokens, mask = ragged((3, 2), [[4, 1], [0, 2], [3, 4]], seed=2)
    hidden, after = stems.feed(tokens, mask)
    check_stems(model, after, extended(texts, tokens, mask))
    for b in range(3):
        for n in range(2):
            count = int(mask[b, n].sum())
            expected, _ = plain_forward(model, texts[b][n] + tokens[b, n, :count].tolist())
            torch.testing.assert_close(hidden[b, n, :count], expected[len(texts[b][n]) :], rtol=1e-4, atol=1e-5)


def test_all_tokens_are_appended_without_a_mask(model):
    tokens, _ = ragged((3, 2), [[3, 3]] * 3)
    stems = prefill(model, *left_pad(PROMPTS)).fork(2)
    whole = stems.append(tokens)
    masked = stems.append(tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert torch.equal(whole.hidden, masked.hidden) and torch.equal(whole.visible, masked.visible)
    check_stems(model, masked, [[p + tokens[b, n].tolist() for n in range(2)] for b, p in enumerate(PROMPTS)])


def test_what_stands_behind_the_mask_does_not_matter(model):
    tokens, mask = ragged((3, 2), [[2, 0], [1, 4], [3, 3]])
    stems = prefill(model, *left_pad(PROMPTS)).fork(2)
    one = stems.append(tokens, mask)
    other = stems.append(torch.where(mask, tokens, 7), mask)
    more, more_mask = ragged((3, 2), [[1, 2], [2, 2], [0, 1]], seed=5)
    twice = other.append(more, more_mask)
    assert torch.equal(one.hidden, other.hidden)
    check_stems(model, twice, extended(extended([[p] * 2 for p in PROMPTS], tokens, mask), more, more_mask))


def test_forks_of_grown_stems(model):
    first, first_mask = ragged((3, 2), [[2, 1], [0, 3], [3, 3]], seed=3)
    stems = prefill(model, *left_pad(PROMPTS)).fork(2).append(first, first_mask).fork(2)
    texts = extended([[prompt] * 2 for prompt in PROMPTS], first, first_mask)
    texts = [[text for text in row for _ in range(2)] for row in texts]  # a stem's copies stand next to each other
    second, second_mask = ragged((3, 4), [[1, 2, 3, 0], [2, 2, 1, 1], [0, 3, 0, 2]], seed=4)
    check_stems(model, stems.append(second, second_mask), extended(texts, second, second_mask))


def check_search(model, result, texts: Texts, paths, num_beams: int) -> None:
    rows = [text for row in texts for text in row]
    assert len(result.scores) == len(rows)
    for row, text in enumerate(rows):
        check_row(result, row, *reference_search(model, text, paths, num_beams))


def test_stems_are_searched_searched_again_and_continued(model):
    items = make_items(3, 30)
    trie, paths, roots = build_trie(items), unique_paths(items), torch.zeros(3, dtype=torch.long)
    first, first_mask = ragged((3, 2), [[2, 1], [0, 3], [3, 3]], seed=3)
    stems = prefill(model, *left_pad(PROMPTS)).fork(2).append(first, first_mask)
    texts = extended([[prompt] * 2 for prompt in PROMPTS], first, first_mask)
    found = search_stems(model, trie, roots, stems, 5)
    check_search(model, found, texts, paths, 5)
    again = search_stems(model, trie, roots, stems, 5)
    assert torch.equal(found.sequences, again.sequences)
    torch.testing.assert_close(found.scores, again.scores, rtol=1e-6, atol=0)
    # Continued after a search, searched again, and the shorter stems once more after that.
    second, second_mask = ragged((3, 2), [[1, 4], [2, 2], [0, 1]], seed=6)
    longer = stems.append(second, second_mask)
    longer_texts = extended(texts, second, second_mask)
    check_stems(model, longer, longer_texts)
    check_search(model, search_stems(model, trie, roots, longer, 7), longer_texts, paths, 7)
    check_stems(model, longer.append(second), extended(longer_texts, second, torch.ones_like(second).bool()))
    check_search(model, search_stems(model, trie, roots, stems, 4), texts, paths, 4)


def test_an_overwritten_continuation_is_refused(model):
    tokens, _ = ragged((3, 2), [[2, 2]] * 3)
    stems = prefill(model, *left_pad(PROMPTS)).fork(2)
    first = stems.append(tokens)
    second = stems.append(tokens.flip(0))  # as many columns as the first, in their place
    with pytest.raises(AssertionError, match="overwritten by another continuation"):
        first.append(tokens)
    trie, roots = build_trie(make_items(2, 9)), torch.zeros(3, dtype=torch.long)
    with pytest.raises(AssertionError, match="overwritten by another continuation"):
        search_stems(model, trie, roots, first, 3)
    texts = [[p + tokens.flip(0)[b, n].tolist() for n in range(2)] for b, p in enumerate(PROMPTS)]
    third = second.append(tokens)  # a refusal changes nothing
    check_stems(model, third, extended(texts, tokens, torch.ones_like(tokens).bool()))
    search_stems(model, trie, roots, stems, 3)
    with pytest.raises(AssertionError, match="overwritten by another continuation"):
        second.append(tokens)


def columns(cache: ColumnCache) -> int:
    """Columns set aside, the same in every block."""
    (found,) = {block.shape[-2] for layer in cache.layers for block in (layer.keys, layer.values)}
    return found


def elements(cache: ColumnCache) -> int:
    return sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        # A full block grows by half of what is used, or by the room where that is more; prompts of 4.
        (0, [4, 7, 11, 17, 26, 40]),  # 5 + 2, 8 + 3, 12 + 5, 18 + 8, 27 + 13
        (6, [10, 17, 26, 40]),  # 4 + 6; 11 + 6, 18 + 8, 27 + 13
        (28, [32]),
    ],
)
def test_growth_beyond_the_room(model, room, expected):
    prompts = make_prompts([4, 2])
    stems = prefill(model, *left_pad(prompts), room)
    texts, found = [[prompt] for prompt in prompts], [columns(stems.cache)]
    for step in range(28):
        tokens, mask = ragged((2, 1), [[1], [1]], seed=step)
        stems, texts = stems.append(tokens, mask), extended(texts, tokens, mask)
        if found[-1] != columns(stems.cache):
            found.append(columns(stems.cache))
    assert found == expected
    assert stems.cache.get_seq_length() == 32
    check_stems(model, stems, texts)


@pytest.mark.parametrize(("num_stems", "num_beams"), [(1, 1), (1, 32), (4, 1), (4, 8)])
def test_a_prompt_is_stored_once_however_many_stems_and_beams(model, num_stems, num_beams):
    items = make_items(3, 60)
    trie, roots = build_trie(items), torch.zeros(3, dtype=torch.long)
    live = [min(num_beams, len({p[:d] for p in unique_paths(items)})) for d in (1, 2)]  # beams at levels 1 and 2
    room = num_stems * num_beams * 2
    stems = prefill(model, *left_pad(PROMPTS), room).fork(num_stems)
    search_stems(model, trie, roots, stems, num_beams)
    assert elements(stems.cache) == 3 * COLUMN * (9 + room)
    assert stems.cache.get_seq_length() == 9 + num_stems * sum(live)  # the last level's beams are never fed


def test_the_search_sets_its_room_aside_at_once(model, monkeypatch):
    made = []

    def watched(*args, **kwargs):
        made.append(prefill(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(beam, "prefill", watched)
    trie = build_trie(make_items(4, 200), begin_ids=[95])
    request = (torch.zeros(3, dtype=torch.long), *left_pad(PROMPTS), 5)
    beam_search(model, trie, *request)
    beam_search(model, trie, request[0][:, None], *request[1:])
    assert [elements(stems.cache) // (3 * COLUMN) for stems in made] == [9 + 3 * 5, 9 + 4 * 5]
    assert [stems.cache.get_seq_length() for stems in made] == [9 + 3 * 5, 9 + 1 + 3 * 5]


def test_appending_keeps_no_graph(model):
    with torch.enable_grad():
        stems = prefill(model, *left_pad(PROMPTS)).append(torch.ones(3, 1, 2, dtype=torch.long))
    assert not stems.hidden.requires_grad
    assert not any(block.requires_grad for layer in stems.cache.layers for block in (layer.keys, layer.values))


def test_bfloat16_is_close_to_float32(model):
    rough = make_model().to(torch.bfloat16)
    tokens, mask = ragged((3, 2), [[4, 0], [2, 3], [1, 4]])
    stems = prefill(rough, *left_pad(PROMPTS)).fork(2).append(tokens, mask).append(tokens[..., :2])
    texts = extended([[p] * 2 for p in PROMPTS], tokens, mask)
    texts = [[t + tokens[b, n, :2].tolist() for n, t in enumerate(row)] for b, row in enumerate(texts)]
    assert stems.hidden.dtype == torch.bfloat16 == stems.cache.layers[0].keys.dtype
    for b in range(3):
        for n in range(2):
            exact, _ = plain_forward(model, texts[b][n])
            error = (stems.hidden[b, n].float() - exact[-1]).norm() / exact[-1].norm()
            other, _ = plain_forward(model, texts[b][n][:-1])
            assert error < 0.1  # 8 bits a number, 2 layers
            assert (other[-1] - exact[-1]).norm() / exact[-1].norm() > 0.3  # one token less is far off


def test_prompts_and_models_that_cannot_be_prefilled_are_named(model):
    with pytest.raises(ConfigError, match="got an empty batch or an empty prompt"):
        prefill(model, *left_pad([]))
    with pytest.raises(ConfigError, match="got an empty batch or an empty prompt"):
        prefill(model, *left_pad([[3], []]))
    with pytest.raises(ConfigError, match="padded on the left"):
        prefill(model, torch.ones(1, 3, dtype=torch.long), torch.tensor([[1, 0, 1]]))
    other = make_model()
    other.config._attn_implementation = "flex_attention"
    with pytest.raises(ModelError, match="'flex_attention' takes no 4D mask"):
        prefill(other, *left_pad([[3]]))
