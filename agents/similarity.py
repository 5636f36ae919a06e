"""How close texts are in meaning: the cosine of their embeddings, pair by pair.

Does not know what the texts are; the embedding model is `agents/local/embeddings.py`.
"""

from __future__ import annotations

from collections.abc import Sequence


def closeness(texts: Sequence[str], references: Sequence[str]) -> list[float]:
    """Return the cosine, -1 to 1, of each text with the reference at its place."""
    from agents.local.embeddings import embed

    vectors = embed([*texts, *references])
    return [float(a @ b) for a, b in zip(vectors[: len(texts)], vectors[len(texts) :], strict=True)]
