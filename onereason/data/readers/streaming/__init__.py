"""Imports that stream: public corpora whose tables are larger than memory, joined out of core by DuckDB.

`layout` declares a corpus, `sources` finds and checks its tables, `sids`, `users` and `items` are the steps of the
join, `importer` runs them. Importing this package loads no DuckDB and no Polars.
"""
