"""The OpenAI-compatible service: every persona, and every version of it, is a model name.

Knows nothing of where versions are recorded, nor how a model computes its answer.
"""
