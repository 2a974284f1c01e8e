"""RQ-KMeans of the toolkit against faiss's own residual quantizer: time, peak memory, reconstruction error.

    python benchmarks/tokenizer.py            # 100,000 x 384 at 3 x 256 and 3 x 8192
    python benchmarks/tokenizer.py --quick    # 10,000 x 64 at 3 x 64

The vectors are seeded and clustered (a two-level mixture of Gaussians). Each case runs in a process of its own, so its
peak memory is its own; a case that outlasts `--time-limit` is stopped and reported as such. `faiss.ResidualQuantizer`
runs with its defaults: a beam of 5 in training and encoding (`--beam 1` makes it greedy, as ours is), and
progressive-dimension k-means with 10 steps of 10 iterations. Processor seconds stand beside wall-clock seconds, because
they say more on a shared machine. The last line is one JSON object with all figures; a ratio is faiss over onereason,
so above 1 means that faiss takes more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cases import measure_case, peak_mebibytes

SYSTEMS = ("onereason", "faiss")


def make_vectors(num_vectors: int, dim: int, seed: int):
    """Clustered vectors float32 `[N, D]`: coarse centres, finer centres around them, noise around those."""
    import numpy as np

    rng = np.random.default_rng(seed)
    num_coarse, num_fine = max(num_vectors // 500, 2), max(num_vectors // 25, 4)
    coarse = rng.standard_normal((num_coarse, dim), dtype=np.float32)
    fine = coarse[rng.integers(0, num_coarse, num_fine)]
    fine += 0.5 * rng.standard_normal((num_fine, dim), dtype=np.float32)
    vectors = fine[rng.integers(0, num_fine, num_vectors)]
    for start in range(0, num_vectors, 10_000):
        part = vectors[start : start + 10_000]
        part += 0.3 * rng.standard_normal(part.shape, dtype=np.float32)
    return vectors


def run_case(
    system: str, num_vectors: int, dim: int, levels: int, codes: int, iterations: int, beam: int, seed: int
) -> dict[str, float]:
    """Fits and encodes once in this process; seconds, mebibytes, error left as a share of the variance."""
    import faiss
    import numpy as np

    from onereason.itemic.quantize import compute_variance, encode, fit_rq_kmeans, reconstruct

    vectors = make_vectors(num_vectors, dim, seed)
    before = peak_mebibytes()
    start, cpu_start = time.perf_counter(), time.process_time()
    if system == "onereason":
        codebooks = fit_rq_kmeans(vectors, (codes,) * levels, seed=seed, iterations=iterations)
        fitted = time.perf_counter()
        encoding = encode(codebooks, vectors)
        end, cpu_end = time.perf_counter(), time.process_time()
        peak = peak_mebibytes()
        rebuilt = reconstruct(codebooks, encoding.codes)
    else:
        quantizer = faiss.ResidualQuantizer(dim, levels, codes.bit_length() - 1)
        quantizer.cp.seed = seed
        quantizer.max_beam_size = beam
        quantizer.train(vectors)
        fitted = time.perf_counter()
        packed = quantizer.compute_codes(vectors)
        end, cpu_end = time.perf_counter(), time.process_time()
        peak = peak_mebibytes()
        rebuilt = quantizer.decode(packed)
    rebuilt -= vectors
    error = float(np.einsum("nd,nd->", rebuilt, rebuilt, dtype=np.float64)) / compute_variance(vectors)
    return {
        "fit_seconds": fitted - start,
        "encode_seconds": end - fitted,
        "seconds": end - start,
        "cpu_seconds": cpu_end - cpu_start,
        "peak_mib": peak,
        "peak_above_data_mib": peak - before,
        "relative_mse": error,
    }


def measure(system: str, shape: dict[str, int], args: argparse.Namespace) -> dict[str, Any]:
    """Runs one case in its own process, or says how long it was waited for."""
    case = {"system": system, **shape, "iterations": args.iterations, "beam": args.beam, "seed": args.seed}
    return measure_case(__file__, case, args.threads, args.time_limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="10,000 x 64 at 3 x 64")
    parser.add_argument("--vectors", type=int, default=100_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--dim", type=int, default=384, metavar="D", help="default: %(default)s")
    parser.add_argument("--levels", type=int, default=3, metavar="L", help="default: %(default)s")
    parser.add_argument(
        "--codes", type=int, nargs="+", default=[256, 8192], metavar="C", help="powers of 2 (default: 256 8192)"
    )
    parser.add_argument("--iterations", type=int, default=20, help="k-means iterations (default: %(default)s)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="default: both")
    parser.add_argument("--beam", type=int, default=5, help="beam of faiss (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, metavar="SECONDS", help="for one case (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run_case(**json.loads(args.case))))
        return
    if args.quick:
        args.vectors, args.dim, args.codes = 10_000, 64, [64]
        args.time_limit = min(args.time_limit, 20.0)
    wrong = next((c for c in args.codes if c < 2 or c & (c - 1)), None)
    if wrong is not None:
        parser.error(f"--codes {wrong} is not a power of 2; faiss counts codes in bits.")

    results = []
    for codes in args.codes:
        shape = {"num_vectors": args.vectors, "dim": args.dim, "levels": args.levels, "codes": codes}
        row: dict[str, Any] = dict(shape)
        for system in args.systems:
            print(f"{args.levels} x {codes}: {system} ...", file=sys.stderr, flush=True)
            row[system] = measure(system, shape, args)
            print(json.dumps(row[system]), file=sys.stderr, flush=True)
        row["ratio"] = {
            key: row["faiss"][key] / row["onereason"][key]
            for key in ("seconds", "cpu_seconds", "peak_mib", "relative_mse")
            if all(key in row.get(system, {}) for system in SYSTEMS)
        }
        results.append(row)
    print_table(results, args)
    print(
        json.dumps(
            {
                "benchmark": "tokenizer",
                "threads": args.threads,
                "beam": args.beam,
                "seed": args.seed,
                "results": results,
            }
        )
    )


def print_table(results: list[dict[str, Any]], args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{args.vectors:,} x {args.dim} vectors, {args.threads} thread(s)")
    table.add_column("shape")
    table.add_column("system")
    for name in ("fit (s)", "encode (s)", "total (s)", "CPU (s)", "peak (MiB)", "above data (MiB)", "error left"):
        table.add_column(name, justify="right")
    for row in results:
        for system in args.systems:
            figures = row[system]
            if "seconds" not in figures:
                cells = [f"did not finish in {figures['did_not_finish_seconds']:g} s"]
            else:
                keys = ("fit_seconds", "encode_seconds", "seconds", "cpu_seconds", "peak_mib", "peak_above_data_mib")
                cells = [f"{figures[key]:,.1f}" for key in keys] + [f"{figures['relative_mse']:.2%}"]
            table.add_row(f"{row['levels']} x {row['codes']}", system, *cells)
    # A fixed width keeps the table whole where the output goes to a file.
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    main()
