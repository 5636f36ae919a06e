"""Units of work with consequences: rows, files, training jobs, ratings, promotions.

Files here are Prefect tasks (verbs); folders are what they use (nouns) and never import Prefect.
"""
