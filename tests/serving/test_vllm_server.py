"""`onereason serve` before it starts: the command, and what is refused in one line with exit code 2."""

from __future__ import annotations

import shlex
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onereason.cli import main
from onereason.itemic.catalog import Catalog
from onereason.model.vllm_check import SERVE_PYTHON
from onereason.serving.vllm_server import PLUGIN, TESTED_VERSIONS
from tests.serving.conftest import FORMAT, free_port, make_catalog


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Puts a program that tells a version of vLLM in the place of the serving environment's python."""

    def put(says: str, code: int = 0) -> Path:
        program = tmp_path / "python"
        body = f"import sys\nif 'distributions' in sys.argv[-1]: print({says!r})\nsys.exit({code})\n"
        program.write_text(f"#!{sys.executable}\n{body}")
        program.chmod(0o755)
        monkeypatch.setenv(SERVE_PYTHON, str(program))
        return program

    return put


def serve(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["serve", *arguments])
    said = capsys.readouterr()
    assert len(said.err.splitlines()) <= 1
    return code, said.out, said.err


def test_the_command_that_is_printed(python, model_dir, tmp_path, capsys):
    program = python(f"{TESTED_VERSIONS[0]} True")
    make_catalog(3).save(tmp_path / "catalog")
    port = str(free_port())
    options = ["--port", port, "--name", "rec", "--catalog", str(tmp_path / "catalog"), "--max-logprobs", "70"]
    code, out, _ = serve(capsys, str(model_dir), *options, "--vllm-options=--max-model-len 512", "--print")
    assert code == 0
    words = shlex.split(out)
    place = words.index(str(program))
    variables = dict(word.split("=", 1) for word in words[:place])
    assert variables["ONEREASON_CATALOG"] == str(tmp_path / "catalog") and variables["HF_HUB_OFFLINE"] == "1"
    assert words[place + 1 : place + 3] == ["-m", "vllm.entrypoints.openai.api_server"]
    told = dict(zip(words[place + 3 :], words[place + 4 :], strict=False))
    assert told["--model"] == str(model_dir) and told["--served-model-name"] == "rec" and told["--port"] == port
    assert told["--logits-processors"] == PLUGIN and told["--logprobs-mode"] == "processed_logprobs"
    assert told["--max-logprobs"] == "70" and told["--max-model-len"] == "512"
    assert told["--chat-template"] == str(model_dir / "chat_template.jinja")


def test_folders_that_cannot_be_served(python, model_dir, tmp_path, capsys):
    python(f"{TESTED_VERSIONS[0]} True")
    code, _, said = serve(capsys, str(tmp_path / "nothing"))
    assert code == 2 and "does not exist" in said
    for name, why in (
        ("model.safetensors", "model.safetensors"),
        ("itemic.json", "itemic.json"),
        ("catalog.json", "catalog"),
    ):
        broken = tmp_path / f"without-{name}"
        shutil.copytree(model_dir, broken)
        (broken / name).unlink()
        code, _, said = serve(capsys, str(broken))
        assert code == 2 and why in said, said


def test_catalogs_of_another_format_and_none(python, model_dir, tmp_path, capsys):
    python(f"{TESTED_VERSIONS[0]} True")
    other = make_catalog(3)
    format_ = replace(FORMAT, codes_per_level=(6, 6, 8))
    Catalog(format_, other.item_ids, other.codes, other.domains).save(tmp_path / "other")
    code, _, said = serve(capsys, str(model_dir), "--catalog", str(tmp_path / "other"))
    assert code == 2 and "the catalog" in said and "format" in said
    code, _, said = serve(capsys, str(model_dir), "--catalog", str(tmp_path))
    assert code == 2 and "holds no catalog; give a folder" in said


def test_ports_that_are_taken_or_none(python, model_dir, capsys):
    python(f"{TESTED_VERSIONS[0]} True")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, said = serve(capsys, str(model_dir), "--port", str(taken.getsockname()[1]), "--print")
    assert code == 2 and "it is taken; give another --port" in said
    code, _, said = serve(capsys, str(model_dir), "--port", "70000", "--print")
    assert code == 2 and "port must lie in 1 .. 65535" in said


def test_environments_without_what_is_needed(python, model_dir, capsys, monkeypatch, tmp_path):
    port = ["--port", str(free_port()), "--print"]
    python("0.1.0 True")
    code, _, said = serve(capsys, str(model_dir), *port)
    assert code == 2 and f"has vLLM 0.1.0; tested are {TESTED_VERSIONS[0]}" in said and "--any-version" in said
    assert serve(capsys, str(model_dir), *port, "--any-version")[0] == 0
    python(f"{TESTED_VERSIONS[0]} False")
    code, _, said = serve(capsys, str(model_dir), *port)
    assert code == 2 and "has vLLM but no onereason" in said
    python("", code=1)
    code, _, said = serve(capsys, str(model_dir), *port)
    assert code == 2 and "has no vLLM; run `make serve-env`" in said
    monkeypatch.setenv(SERVE_PYTHON, str(tmp_path / "nowhere"))
    code, _, said = serve(capsys, str(model_dir), *port)
    assert code == 2 and "make serve-env" in said
