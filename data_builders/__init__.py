"""Builders of the alignment corpora: dataset and catalog -> `rows.jsonl`, `manifest.json`, `CARD.md`.

Each builder is one pure row function, declared arguments, a seed, a manifest and a data card.
"""
