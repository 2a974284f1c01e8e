"""Model cards from files written by hand: each figure in its place, and nothing that no file tells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from onereason.errors import ConfigError, DataError
from onereason.evaluation.measurements import load_results, match_weights
from onereason.evaluation.model_card import CardFacts, build_card
from onereason.itemic.catalog import Catalog
from onereason.itemic.format import load_format
from onereason.itemic.vocabulary import ItemicVocabulary
from onereason.model.lineage import DataSource, Lineage, Stage

CHECK = {"prompts": 4, "tokens": 16, "equal": 4, "ties": 0, "different": 0, "max_logit_difference": 3e-7}
LAYERS: dict[str, Any] = {
    "tasks": {
        "caption": {
            "layer": "R0",
            "version": 3,
            "modes": {
                "no_think": {
                    "counts": {"rows": 20, "malformed": 1},
                    "metrics": {
                        "token_f1": {"value": 0.123456789, "low": 0.1, "high": 0.2},
                        "judge_score": {"value": None, "reason": "no judge was asked"},
                    },
                },
                "think": {
                    "counts": {"rows": 20, "malformed": 5},
                    "metrics": {"token_f1": {"value": 0.25, "low": 0.2, "high": 0.3}},
                },
            },
            "difference": {"token_f1": {"difference": 0.126543211, "low": 0.05, "high": 0.2}},
        }
    },
    "lm_eval": {"gsm8k": {"exact_match": 0.3125}},
    "manifest": {"kind": "layered_evaluation", "inputs": {"mine.jsonl": "d" * 64, "model.safetensors": "a" * 64}},
}


def facts() -> CardFacts:
    format = load_format("onereason", 2, 4)
    codes = np.array([[0, 1], [0, 1], [2, 3]])
    catalog = Catalog(format, ["it em", "b", "c"], codes, ["video", "video", "ad"], ["x"] * 3)
    return CardFacts(
        name="me/model",
        config={"architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16", "max_position_embeddings": 4096},
        parameters=1234567,
        vocabulary=ItemicVocabulary(format, 300),
        catalog=catalog,
        rows_without_token=12,
        prompt={"style": "chat", "max_history": 20, "language": "zh"},
        lineage=Lineage((), "the folder is gone"),
        measurements=(),
        checks={"reopened": CHECK},
        license=None,
    )


def parts(card_facts: CardFacts) -> tuple[dict[str, Any], str]:
    """Front matter and body, read back as the hub reads them."""
    _, head, body = str(build_card(card_facts)).split("---\n", 2)
    return yaml.safe_load(head), body


def section(body: str, title: str) -> str:
    return body.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_what_is_known_of_a_model_alone():
    head, body = parts(facts())
    assert head == {
        "language": ["zh"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["recommendation", "semantic-ids", "onereason"],
    }
    itemic = section(body, "Itemic format")
    assert "| codes a level | 4 x 4 |" in itemic and "| a pattern | `<|video_begin|><s_a_3><s_b_3>` |" in itemic
    assert "| token ids | 300 to 315 |" in itemic  # 2 x 4 codes, begin and end tokens of four domains
    assert "| items | 3 (video 2, ad 1) |" in itemic and "| semantic ids | 2 |" in itemic
    assert "| items that share one | 2 (at most 2 an id) |" in itemic
    assert "onereason recommend --model model --items 'it em,b'" in body
    assert "| parameters | 1,234,567 |" in body and "| longest context | 4,096 tokens |" in body
    assert "| started from | not known |" in body
    assert "What came before this model is not known: the folder is gone." in section(body, "Stages")
    checks = section(body, "Checks")
    assert "float32 | not made |" in checks and "it was written | 4 of 4 | 0 | 3.0e-07 |" in checks
    limits = section(body, "Limits")
    assert "2 items share a semantic id with another one" in limits and "12 embedding rows have no token" in limits
    assert "How well it recommends at once and thinking is not known" in limits
    assert "simulated" not in limits and "falls short" not in limits


def test_layers_of_the_model():
    measured = match_weights(Path("r.json"), LAYERS, {"model.safetensors": "a" * 64}, {})
    head, body = parts(replace(facts(), measurements=[measured], license="mit"))
    assert head["license"] == "mit"
    (index,) = head["model-index"]
    found = {
        (group["dataset"]["type"], group["dataset"]["config"], metric["type"]): metric["value"]
        for group in index["results"]
        for metric in group["metrics"]
    }
    assert found == {("caption", "no_think", "token_f1"): 0.123456789, ("caption", "think", "token_f1"): 0.25}
    assert {group["dataset"]["revision"] for group in index["results"]} == {"d" * 64}
    assert {group["dataset"]["name"] for group in index["results"]} == {"caption (version 3)"}
    metrics = section(body, "Metrics")
    assert "0.1235 (0.1000 to 0.2000) | 0.2500 (0.2000 to 0.3000) | +0.1265 (+0.0500 to +0.2000) | 5%/25% |" in metrics
    assert "- No value for caption judge_score: no judge was asked." in metrics
    assert "| gsm8k | exact_match | 0.3125 |" in metrics
    assert "`mit`, as given to the export." in section(body, "Licence")


def test_stages_and_data():
    corpus = {
        "kind": "corpus",
        "inputs": {},
        "config": {},
        "counts": {"rows": 9, "teacher_template": 4, "teacher_big": 5},
    }
    world = {"kind": "dataset", "inputs": {}, "config": {"source": "simulate"}, "counts": {"users": 5, "items": 3}}
    warmup = {
        "kind": "warmup",
        "seed": 4,
        "config": {"training": {"learning_rate": 0.5}},
        "counts": {"steps": 1000, "persona_rows": 18, "persona_supervised_tokens": 2500},
        "versions": {"onereason": "0.0.7"},
        "validation": {"recall_at_10": None},
    }
    rl = {
        "kind": "rl",
        "config": {"tuning": "full", "note": "a|b <i>"},
        "counts": {"prompts": 77},
        "validation": {"recall_at_10": 0.04321},
    }
    other = {"kind": "their|own", "config": {}}
    lineage = Lineage(
        (
            Stage(warmup, (DataSource("persona", "b" * 64, corpus, ""),)),
            Stage(
                rl,
                (DataSource("data", "c" * 64, world, ""), DataSource("more", None, None, "its hash is not recorded")),
            ),
            Stage(other, ()),
        ),
        "",
    )
    _, body = parts(replace(facts(), lineage=lineage, catalog=None))
    shown, read = section(body, "Stages"), section(body, "Data")
    assert "What came before" not in shown
    assert "| 1 | token warm-up | itemic rows | 1,000 | 0.5 | 4 |  | 0.0.7 |" in shown
    assert "| 2 | reinforcement | all parameters |  |  |  | Recall@10 0.0432 | not known |" in shown
    assert r"| 3 | their\|own |  |" in shown
    assert yaml.safe_load(shown.split("```")[3].removeprefix("yaml")) == rl["config"]
    assert (
        "| 1 | persona | corpus (9 rows) | 18 rows, 2,500 supervised tokens | template, big | `bbbbbbbbbbbb` |" in read
    )
    assert "| 2 | data | simulated dataset (5 users, 3 items) | 77 prompts |  | `cccccccccccc` |" in read
    assert "| 2 | more | not known: its hash is not recorded | 77 prompts | not known | not known |" in read
    limits = section(body, "Limits")
    assert "It learned from simulated users" in limits and "items of its catalog" not in limits
    assert "onereason recommend --model model --items ITEM_ID,ITEM_ID" in body


def test_rounding_and_ties_are_told():
    rounded = CHECK | {"equal": 2, "ties": 1, "different": 1, "max_logit_difference": 0.05}
    _, body = parts(replace(facts(), checks={"rounded": rounded, "vllm": CHECK | {"max_logit_difference": None}}))
    assert "against float32 | 2 of 4 | 1 | 5.0e-02 |" in section(body, "Checks")
    assert "vLLM against transformers, float32 | 4 of 4 | 0 | not compared |" in section(body, "Checks")
    assert "Rounding the weights to their stored type changes what it writes" in section(body, "Limits")


def test_results_belong_to_weights():
    exported, source = {"model.safetensors": "a" * 64}, {"m1.safetensors": "b" * 64, "m2.safetensors": "c" * 64}

    def results(*hashes: str) -> dict[str, Any]:
        inputs = {f"part{n}.safetensors": digest for n, digest in enumerate(hashes)} | {"itemic.json": "e" * 64}
        return LAYERS | {"manifest": {"kind": "layered_evaluation", "inputs": inputs}}

    assert match_weights("r", results("a" * 64), exported, source).weights == "exported"
    assert match_weights("r", results("c" * 64, "b" * 64), exported, source).weights == "source"
    assert match_weights("r", results(), exported, source).weights == "served"
    for hashes in (["d" * 64], ["b" * 64], ["a" * 64, "b" * 64]):
        with pytest.raises(ConfigError, match=r"--results r was measured on other weights \([a-d]{12}\) than those"):
            match_weights("r", results(*hashes), exported, source)


@pytest.mark.parametrize(
    "value", [[], {"manifest": 1}, {"manifest": {"kind": "export", "inputs": {}}}, {"manifest": {"kind": "evaluation"}}]
)
def test_files_that_hold_no_results(tmp_path, value):
    (tmp_path / "results.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match="holds no results of `onereason evaluate` or `onereason evaluate-layers`"):
        load_results(tmp_path / "results.json")
