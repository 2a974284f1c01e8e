"""Teachers from the command line: `--teacher template | local:MODEL_DIR | endpoint` and what belongs to them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onereason.cognition.teachers.base import Teacher
from onereason.errors import ConfigError

TEACHER_OPTIONS = ("teacher", "teacher_model", "teacher_temperature", "teacher_max_tokens", "teacher_extra")
"""Arguments that the texts depend on, for a corpus's manifest."""
CACHE_NAME = "teacher_cache"
_ENDPOINT_ONLY = ("teacher_url", "teacher_model", "teacher_extra")


def add_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("teacher")
    add = group.add_argument
    add(
        "--teacher",
        default="template",
        metavar="TEACHER",
        help="template (from evidence in the data, no model), local:MODEL_DIR, or endpoint (default: %(default)s)",
    )
    add("--teacher-url", metavar="URL", help="OpenAI-compatible chat endpoint, up to /v1")
    add("--teacher-model", metavar="NAME", help="the name the endpoint's model is served under")
    add("--teacher-key-env", default="OPENAI_API_KEY", metavar="NAME", help="variable with the API key (%(default)s)")
    add("--teacher-temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default: %(default)s)")
    add("--teacher-max-tokens", type=int, default=2048, metavar="N", help="of an answer (default: %(default)s)")
    add(
        "--teacher-extra",
        type=parse_extra,
        metavar="JSON",
        help="further fields of a request, e.g. '{\"top_p\": 0.9}'; null takes one out",
    )
    add("--teacher-concurrency", type=int, default=8, metavar="N", help="requests at once (default: %(default)s)")
    add("--teacher-requests-per-minute", type=float, metavar="N", help="rate limit (default: none)")
    add("--teacher-tokens-per-minute", type=float, metavar="N", help="rate limit (default: none)")
    add("--teacher-timeout", type=float, default=120.0, metavar="S", help="seconds a try (default: %(default)s)")
    add("--teacher-tries", type=int, default=5, metavar="N", help="tries a request (default: %(default)s)")
    add(
        "--teacher-max-failures",
        type=int,
        default=20,
        metavar="N",
        help="requests in a row without a usable answer that stop the build (default: %(default)s)",
    )
    add(
        "--teacher-cache",
        type=Path,
        metavar="DIR",
        help=f"folder where answers are kept, so that none is paid twice (default: {CACHE_NAME} beside --out)",
    )
    add("--teacher-price-in", type=float, metavar="P", help="price of a million prompt tokens")
    add("--teacher-price-out", type=float, metavar="P", help="price of a million completion tokens")
    add("--teacher-device", default="auto", help="of a local teacher: auto, cpu, cuda, cuda:N (default: %(default)s)")
    add(
        "--teacher-dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of a local teacher; auto: bfloat16 where the hardware has it",
    )


def parse_extra(text: str) -> dict[str, Any]:
    """A JSON object of the command line."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} should be a JSON object")
    return value


def teacher_from_arguments(args: argparse.Namespace) -> Teacher:
    """The teacher that a parser with `add_teacher_arguments` read.

    Reads `seed`, `out` (for the default of `--teacher-cache`) and `workers` too where `args` has them: each worker
    process has a teacher of its own, so limits and concurrency are shared out among them.

    Raises:
        ConfigError: arguments that are out of range or do not go together.
        ModelError: the folder of a local teacher does not exist.
    """
    if args.teacher != "endpoint":
        for name in _ENDPOINT_ONLY:
            if getattr(args, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} belongs to --teacher endpoint, got {args.teacher!r}.")
    out = getattr(args, "out", None)
    cache = args.teacher_cache
    if cache is None and out is not None:
        cache = Path(out).parent / CACHE_NAME
    workers = max(1, getattr(args, "workers", None) or 1)
    return load_teacher(
        args.teacher,
        url=args.teacher_url,
        model=args.teacher_model,
        key_env=args.teacher_key_env,
        timeout_seconds=args.teacher_timeout,
        tries=args.teacher_tries,
        cache_dir=cache,
        concurrency=args.teacher_concurrency if workers == 1 else max(1, args.teacher_concurrency // workers),
        requests_per_minute=_share(args.teacher_requests_per_minute, workers),
        tokens_per_minute=_share(args.teacher_tokens_per_minute, workers),
        temperature=args.teacher_temperature,
        max_tokens=args.teacher_max_tokens,
        seed=getattr(args, "seed", None) or 0,
        extra=args.teacher_extra,
        price_in=args.teacher_price_in,
        price_out=args.teacher_price_out,
        max_consecutive_failures=args.teacher_max_failures,
        device=args.teacher_device,
        dtype=args.teacher_dtype,
    )


def _share(limit: float | None, workers: int) -> float | None:
    return None if limit is None else limit / workers


def load_teacher(
    spec: str,
    *,
    url: str | None = None,
    model: str | None = None,
    key_env: str = "OPENAI_API_KEY",
    timeout_seconds: float = 120.0,
    tries: int = 5,
    cache_dir: Path | None = None,
    concurrency: int = 8,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    temperature: float = 0.0,
    max_tokens: int = 2048,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    max_consecutive_failures: int = 20,
    device: str = "auto",
    dtype: str = "auto",
) -> Teacher:
    """A teacher by its name: `template`, `local:MODEL_DIR`, or `endpoint` with `url` and `model`.

    What belongs to another kind of teacher is passed over. Raises as `teacher_from_arguments`.
    """
    if spec == "template":
        from onereason.cognition.teachers.template import TemplateTeacher

        return TemplateTeacher()
    if spec.startswith("local:") and len(spec) > len("local:"):
        from onereason.cognition.teachers.local import LocalTeacher

        return LocalTeacher(
            Path(spec.removeprefix("local:")),
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            device=device,
            dtype=dtype,
        )
    if spec == "endpoint":
        from onereason.cognition.teachers.endpoint import EndpointTeacher
        from onereason.endpoint import Endpoint

        if not url or not model:
            raise ConfigError("--teacher endpoint needs --teacher-url URL and --teacher-model NAME.")
        return EndpointTeacher(
            Endpoint(url, model, key_env, timeout_seconds, tries),
            cache_dir=cache_dir,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            extra=extra,
            price_in=price_in,
            price_out=price_out,
            max_consecutive_failures=max_consecutive_failures,
        )
    raise ConfigError(f"--teacher {spec!r} is not known; use template, local:MODEL_DIR or endpoint.")
