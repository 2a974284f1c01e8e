"""`onereason recommend`: its list equals teacher forcing; its messages name what is unknown."""

from __future__ import annotations

import json

import pytest
import torch

from onereason.cli import main
from onereason.data.prompts import RecommendationPrompt
from onereason.model.folder import load_model_folder


def recommend(world, *extra: str) -> int:
    return main(["recommend", "--model", str(world.model), "--prompt", "plain", *extra])


def answer_of(capsys, world, *extra: str) -> dict:
    assert recommend(world, "--json", *extra) == 0
    return json.loads(capsys.readouterr().out)


@torch.no_grad()
@pytest.mark.parametrize("domain", ["video", "prod"])
def test_list_equals_teacher_forcing_of_every_item(world, capsys, domain):
    found = answer_of(capsys, world, "--items", "i03,i07,i01", "--domain", domain, "--k", "6", "--num-beams", "24")
    folder = load_model_folder(world.model)
    catalog, model = world.catalog, folder.model.eval()
    patterns = folder.vocabulary.pattern_ids(catalog.codes, catalog.domains)
    prompt = RecommendationPrompt(folder.tokenizer, folder.vocabulary, style="plain").encode(
        patterns[[3, 7, 1]], domain
    ) + folder.vocabulary.prefix_ids(domain)
    scores = {}
    for index in (i for i in range(24) if catalog.domains[i] == domain):
        path = folder.vocabulary.code_ids(catalog.codes[index]).tolist()
        logprobs = model(torch.tensor([prompt + path])).logits[0].log_softmax(-1)
        scores[index] = sum(logprobs[len(prompt) - 1 + s, t].item() for s, t in enumerate(path))
    order = sorted(scores, key=lambda i: (-round(scores[i], 4), -catalog.popularity[i], i))[:6]
    rows = found["recommendations"]
    assert [row["item_id"] for row in rows] == [catalog.item_ids[i] for i in order]
    assert [row["score"] for row in rows] == pytest.approx([scores[i] for i in order], rel=1e-4)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["sid"] for row in rows] == [catalog.render(i) for i in order]
    assert [row["item_id"] for row in found["history"]] == ["i03", "i07", "i01"]


def test_user_history_is_the_whole_timeline_and_the_domain_its_newest_items(world, capsys):
    found = answer_of(capsys, world, "--data", str(world.data), "--user", "u05", "--k", "3")
    assert [row["item_id"] for row in found["history"]] == world.sequences["u05"]
    newest = world.catalog.domains[world.catalog.index[world.sequences["u05"][-1]]]
    assert found["domain"] == newest
    assert {row["domain"] for row in found["recommendations"]} == {newest}
    assert len(found["recommendations"]) == 3


def test_fewer_items_than_asked_end_the_list(world, capsys):
    found = answer_of(capsys, world, "--items", "i00", "--domain", "prod", "--k", "15")
    assert sorted(row["item_id"] for row in found["recommendations"]) == [f"i{n:02d}" for n in range(0, 24, 3)]


def test_seen_items_are_left_out_also_under_a_shared_sid(world, capsys):
    """i01 and i04 share a sid: with i01 in the history, i04 stays."""
    asked = ("--items", "i01,i07", "--domain", "video", "--k", "16", "--num-beams", "16")
    plain = [row["item_id"] for row in answer_of(capsys, world, *asked)["recommendations"]]
    left = [row["item_id"] for row in answer_of(capsys, world, *asked, "--exclude-seen")["recommendations"]]
    assert {"i01", "i04", "i07"} <= set(plain)
    assert left == [item for item in plain if item not in ("i01", "i07")]


def test_a_trace_comes_before_the_list(world, capsys):
    asked = ("--prompt", "chat", "--mode", "think", "--think-budget", "4", "--items", "i03,i07", "--k", "3")
    found = answer_of(capsys, world, *asked)
    assert isinstance(found["trace"], str) and len(found["recommendations"]) == 3
    assert answer_of(capsys, world, *asked)["trace"] == found["trace"]
    assert answer_of(capsys, world, *asked, "--seed", "1")["trace"] != found["trace"]
    assert recommend(world, *asked) == 0
    assert "Trace:" in capsys.readouterr().out
    assert recommend(world, "--mode", "think", "--items", "i03") == 2
    assert "style 'plain' has no think block" in capsys.readouterr().err


def test_tables_show_captions_literally(world, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert recommend(world, "--items", "i03,i07", "--k", "2") == 0
    printed = capsys.readouterr().out
    assert "caption of i03 [bold]" in printed and "caption of i07 [bold]" in printed
    assert "Recommended next in domain video" in printed
    assert "the newest 2 of 2 items" in printed


def refused(capsys, world, *extra: str) -> str:
    assert recommend(world, *extra) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_unknown_names_get_near_matches(world, capsys):
    data = ("--data", str(world.data))
    assert "item 'i3' is not in the catalog" in refused(capsys, world, "--items", "i01,i3")
    assert "did you mean i" in refused(capsys, world, "--items", "i3")
    assert "user 'u5' is not in" in refused(capsys, world, *data, "--user", "u5")
    assert "did you mean u" in refused(capsys, world, *data, "--user", "u5")
    assert "(it has u00, u01, u02, ...)" in refused(capsys, world, *data, "--user", "zzz")
    assert "domain 'music' is not in format 'world' (it has video, prod)" in refused(
        capsys, world, "--items", "i01", "--domain", "music"
    )


def test_bad_values_are_named(world, capsys):
    assert "--user needs --data" in refused(capsys, world, "--user", "u05")
    assert "names no item" in refused(capsys, world, "--items", ",")
    assert "k (9) must lie in 1 .. num_beams (4)" in refused(
        capsys, world, "--items", "i01", "--k", "9", "--num-beams", "4"
    )
    assert "k (0) must lie in" in refused(capsys, world, "--items", "i01", "--k", "0")
    with pytest.raises(SystemExit):
        recommend(world)  # neither --user nor --items
