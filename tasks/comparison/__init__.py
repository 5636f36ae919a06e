"""The nouns of a diff: examples, fields and scores of two versions, held against each other."""
