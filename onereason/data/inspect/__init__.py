"""Looking at a corpus: counts, lengths, and rows as the model sees them, for the terminal and as an HTML page.

`reading` finds the files of a corpus and its malformed lines, `statistics` counts and samples in one pass, `lengths`
measures tokens, `render` decodes rows with their supervised spans and captions, `tables` turns all of it into what
`terminal` and `html` show.
"""
