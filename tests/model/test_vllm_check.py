"""Asking vLLM: a real one where the serving environment is there, and programs in its place that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from onereason.errors import ConfigError, ModelError
from onereason.model import vllm_check
from onereason.model.export import compare, write_greedily
from onereason.model.extend import extend_model
from onereason.model.folder import load_model_folder, save_model_folder, unused_row_ids
from onereason.model.vllm_check import SERVE_PYTHON, find_serve_python, require_vllm, write_in_vllm

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Puts a program in the place of the serving environment's python."""

    def put(body: str) -> Path:
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setenv(SERVE_PYTHON, str(program))
        return find_serve_python()

    return put


def test_the_python_that_is_named_is_taken(python, tmp_path, monkeypatch):
    assert python("") == tmp_path / "python"
    monkeypatch.setenv(SERVE_PYTHON, str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=rf"is not there \({SERVE_PYTHON}=.*nothing\); run `make serve-env`"):
        find_serve_python()
    monkeypatch.delenv(SERVE_PYTHON)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"is not there \(\.venv-serve/bin/python\)"):
        find_serve_python()
    place = tmp_path / ".venv-serve" / "bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    assert find_serve_python() == place / "python"


def test_a_python_without_vllm_is_refused(python):
    with pytest.raises(ConfigError, match="has no vLLM; run `make serve-env`"):
        require_vllm(python("sys.exit(1)"))
    require_vllm(python("sys.exit(0)"))


def test_the_request_and_the_environment(python, tmp_path, monkeypatch):
    """The program gets ids and no sampling, does not see this environment's modules, and talks to no hub."""
    monkeypatch.setenv("PYTHONPATH", "/of/this/environment")
    seen = tmp_path / "seen.json"
    program = python(
        f"request = json.load(open(sys.argv[3]))\n"
        f"json.dump([request, sys.argv[1:3], dict(os.environ)], open({str(seen)!r}, 'w'))\n"
        f"json.dump({{'tokens': [[7, 8]], 'version': '9.9'}}, open(sys.argv[4], 'w'))"
    )
    assert write_in_vllm(program, tmp_path / "model", [[1, 2, 3]], [300, 301], 2) == ([[7, 8]], "9.9")
    request, arguments, environment = json.loads(seen.read_text())
    assert request == {
        "model": str(tmp_path / "model"),
        "prompts": [[1, 2, 3]],
        "unused": [300, 301],
        "num_tokens": 2,
    }
    assert arguments == ["-P", str(REPOSITORY / "onereason" / "model" / "vllm_greedy.py")]
    assert "PYTHONPATH" not in environment and environment["HF_HUB_OFFLINE"] == "1"


def test_what_goes_wrong_there_is_one_line_here(python, tmp_path, monkeypatch):
    failing = python("print('INFO: 1', file=sys.stderr); raise ValueError('no such architecture')")
    with pytest.raises(ModelError, match=r"cannot open the folder: ValueError: no such architecture$"):
        write_in_vllm(failing, tmp_path, [[1]], [], 1)
    with pytest.raises(ModelError, match=r"cannot open the folder: Killed$"):
        write_in_vllm(python("print('Killed', file=sys.stderr); sys.exit(137)"), tmp_path, [[1]], [], 1)
    with pytest.raises(ModelError, match="cannot open the folder: it said nothing"):
        write_in_vllm(python(""), tmp_path, [[1]], [], 1)
    monkeypatch.setattr(vllm_check, "TIMEOUT_SECONDS", 0.5)
    with pytest.raises(ModelError, match="did not answer within"):
        write_in_vllm(python("time.sleep(60)"), tmp_path, [[1]], [], 1)


def serving_python() -> Path:
    try:
        python = find_serve_python()
        require_vllm(python)
    except ConfigError as error:
        pytest.skip(str(error))
    return python


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_vllm_writes_what_transformers_writes(tie, tokenizer, build, small_format, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    python = serving_python()
    model, tokenizer, vocabulary = extend_model(build(tie, hidden_size=64), tokenizer, small_format)
    save_model_folder(model, tokenizer, vocabulary, None, tmp_path / "model", {}, max_shard_size="100KB")
    unused = unused_row_ids(320, tokenizer)
    prompts = [[5, 6, 7, 280, 281], [40], list(range(100, 130))]
    expected = write_greedily(load_model_folder(tmp_path / "model").model.eval(), prompts, unused)
    tokens, version = write_in_vllm(python, tmp_path / "model", prompts, unused, 16)
    assert version and compare(expected, tokens).different == 0
    assert compare(expected, tokens).equal >= 2
