"""`onereason simulate`: write a simulated world and the truth behind it."""

from __future__ import annotations

import argparse
import dataclasses

from onereason.data.simulate.config import WorldConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    parser.add_argument("--check", action="store_true", help="print what baselines and an oracle reach on this world")
    for field in dataclasses.fields(WorldConfig):
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=type(field.default),
            default=field.default,
            metavar={int: "N", float: "X", str: "DAY"}[type(field.default)],
            help=f"{field.metadata['help']} (default {field.default})",
        )


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from onereason.data.simulate import measure_learnability, simulate_world, write_world
    from onereason.data.simulate.write import progress_bar
    from onereason.io import require_output_dir

    config = WorldConfig(**{f.name: getattr(args, f.name) for f in dataclasses.fields(WorldConfig)})
    require_output_dir(args.out, args.overwrite)
    with progress_bar() as bar:
        task = bar.add_task("users", total=config.users)
        world = simulate_world(config, lambda done, total: bar.update(task, completed=done, total=total))
    write_world(world, args.out, args.overwrite)

    counts = world.dataset.manifest["counts"]
    print(f"wrote {args.out}: {config.users} users, {config.items} items, {counts['interactions']} interactions")
    table = Table("events", "share")
    for kind, count in counts["kinds"].items():
        table.add_row(kind, f"{count / counts['interactions']:.3f}")
    Console().print(table)
    if args.check:
        table = Table("yardstick", "Recall@10", title="last event of every user, inside its domain")
        for name, value in measure_learnability(world).items():
            table.add_row(name, f"{value:.4f}")
        Console().print(table)
    return 0
