"""Prompt sets: the wording of every corpus, one YAML file a corpus and language (see `onereason.data.prompt_sets`)."""
