"""Builders of corpora: dataset and catalog -> `rows.jsonl`, `manifest.json`, `CARD.md`.

What gave no row stands in `rejected.jsonl` with the reason.

Each builder is one pure row function, declared arguments, a seed, a manifest and a data card.
"""
