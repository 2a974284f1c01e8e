"""A whole project as data: stages, what each needs, and what tells that it is done."""
