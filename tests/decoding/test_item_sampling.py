"""Items drawn behind stems, against the model's own distribution over all items, spelled out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from onereason.decoding.item_sampling import sample_items
from onereason.decoding.stems import left_pad, prefill
from onereason.errors import ConfigError
from onereason.itemic.trie import build_trie
from tests.decoding.reference import make_items, make_model, make_prompts, teacher_forced, unique_paths

PROMPTS = make_prompts([5, 9])


@pytest.fixture(scope="module")
def model():
    return make_model(initializer_range=0.25).double()


@pytest.fixture(scope="module")
def items():
    return make_items(2, 14)


def stems_of(model, num=1):
    return prefill(model, *left_pad(PROMPTS)).fork(num)


def exact(model, prompt, paths, temperature):
    """Probability of each item when each code is drawn among the children: a product of renormalised steps."""
    prefixes = sorted({p[:1] for p in paths})
    chances = {}
    with torch.no_grad():
        for path in paths:
            chance = 1.0
            for depth in range(2):
                logits = model(torch.tensor([prompt + list(path[:depth])])).logits[0, -1].double() / temperature
                children = prefixes if depth == 0 else [p for p in paths if p[:1] == path[:1]]
                options = torch.tensor([logits[p[depth]] for p in children]).softmax(0)
                chance *= options[children.index(path[: depth + 1])].item()
            chances[path] = chance
    return chances


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_items_are_drawn_by_their_renormalised_probabilities(model, items, temperature):
    trie, paths, count = build_trie(items), unique_paths(items), 4000
    drawn = sample_items(model, trie, torch.zeros(2, dtype=torch.long), stems_of(model), count, [[1], [2]], temperature)
    for row, prompt in enumerate(PROMPTS):
        expected = exact(model, prompt, paths, temperature)
        assert sum(expected.values()) == pytest.approx(1.0)
        found = Counter(map(tuple, drawn.sequences[row].tolist()))
        assert set(found) <= set(paths)
        # The rarest share a cell, so that every cell is expected at least five times.
        rare = [p for p in paths if expected[p] * count < 5]
        cells = [[p] for p in paths if p not in rare] + ([rare] if sum(expected[p] for p in rare) * count >= 5 else [])
        observed = np.array([sum(found[p] for p in cell) for cell in cells])
        chance = np.array([sum(expected[p] for p in cell) for cell in cells])
        assert chisquare(observed, chance / chance.sum() * observed.sum()).pvalue > 1e-3


def test_scores_are_those_of_the_whole_vocabulary(model, items):
    trie = build_trie(items)
    drawn = sample_items(model, trie, torch.zeros(2, dtype=torch.long), stems_of(model, 3), 7, [[1, 2, 3], [4, 5, 6]])
    for row in range(6):
        prompt = PROMPTS[row // 3]
        for sequence, score, levels in zip(
            drawn.sequences[row], drawn.scores[row], drawn.level_logprobs[row], strict=True
        ):
            path = tuple(sequence.tolist())
            assert score.item() == pytest.approx(teacher_forced(model, prompt, [path])[path], rel=1e-5)
            first = teacher_forced(model, prompt, [path[:1]])[path[:1]]
            assert levels[0].item() == pytest.approx(first, rel=1e-5)
            assert score.item() == pytest.approx(levels.sum().item(), rel=1e-6)


def test_a_stem_draws_from_its_own_stream(model, items):
    trie, roots = build_trie(items), torch.zeros(2, dtype=torch.long)
    both = sample_items(model, trie, roots, stems_of(model, 2), 6, [[1, 2], [2, 1]])
    swapped = sample_items(model, trie, roots, stems_of(model, 2), 6, [[2, 1], [1, 2]])
    assert torch.equal(both.sequences, swapped.sequences[[1, 0, 3, 2]])
    assert not torch.equal(both.sequences[0], both.sequences[1])


def test_free_draws_tell_legal_from_illegal(model, items):
    trie = build_trie(items)
    roots = torch.zeros(2, dtype=torch.long)
    drawn = sample_items(model, trie, roots, stems_of(model), 4000, [[1], [2]], 1.0, constrained=False)
    known = {tuple(path) for path in items.tolist()}
    legal = [tuple(path) in known for path in drawn.sequences.view(-1, 2).tolist()]
    assert (drawn.leaves.flatten() >= 0).tolist() == legal
    assert 0 < sum(legal) < 8000
    paths = trie.paths(drawn.leaves[drawn.leaves >= 0].numpy())
    assert np.array_equal(paths, drawn.sequences[drawn.leaves >= 0].numpy())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_items": 0}, "must be at least 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"seeds": [[1]]}, "expected 1 seeds for each of 2 prompts"),
        ({"roots": torch.zeros(2, 1, dtype=torch.long)}, "one root a prompt"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model, items, changes, said):
    trie = build_trie(items)
    values = {"roots": torch.zeros(2, dtype=torch.long), "num_items": 3, "seeds": [[1], [2]], "temperature": 1.0}
    values |= changes
    with pytest.raises(ConfigError, match=said):
        sample_items(
            model, trie, values["roots"], stems_of(model), values["num_items"], values["seeds"], values["temperature"]
        )
