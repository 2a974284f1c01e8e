"""`onereason serve`: a model folder behind vLLM's OpenAI-compatible server, its answers held to the catalog's items."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_DIR", help="model folder")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
    parser.add_argument("--name", help="name it is served under (default: the folder's)")
    parser.add_argument(
        "--catalog", type=Path, metavar="DIR", help="catalog, followed when it is replaced (default: the folder's)"
    )
    parser.add_argument("--dtype", default="auto", help="of the weights (default: auto, float32 on CPUs)")
    parser.add_argument(
        "--max-logprobs", type=int, default=260, help="candidates a step at most; beams of a search, and one more"
    )
    parser.add_argument("--any-version", action="store_true", help="start a version of vLLM that is not tested")
    parser.add_argument("--print", action="store_true", help="print the command and end")
    parser.add_argument(
        "--vllm-options", default="", metavar="TEXT", help='further ones, e.g. --vllm-options="--max-model-len 4096"'
    )


def run(args: argparse.Namespace) -> int | None:
    import os
    import shlex
    import sys

    from onereason.errors import ConfigError
    from onereason.model.vllm_check import find_serve_python
    from onereason.serving.vllm_server import ServeConfig, build_command, build_environment, check

    if args.max_logprobs < 2:
        raise ConfigError(f"--max-logprobs must be at least 2, got {args.max_logprobs}.")
    config = ServeConfig(
        args.model,
        find_serve_python(),
        args.host,
        args.port,
        args.name,
        args.catalog,
        args.max_logprobs,
        args.dtype,
        shlex.split(args.vllm_options),
    )
    check(config, args.any_version)
    command, variables = build_command(config), build_environment(config)
    if args.print:
        print(shlex.join([f"{name}={value}" for name, value in variables.items()] + command))
        return None
    print(f"{config.served_name} on http://{args.host}:{args.port}/v1 once it has loaded", file=sys.stderr, flush=True)
    # This process becomes the server, so that signals and exit codes are its own; variables that are set stay.
    os.execve(command[0], command, {**variables, **os.environ})
