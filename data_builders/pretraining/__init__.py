"""The four granularities of pre-training: token, item, relational, user; and text that only balances the recipe.

Each is a section: a number of units, and the rows of one unit. Every fact is written in two forms, as a question with
its answer (`messages`) and freely (`text`), so that the forms stand one to one.
"""
