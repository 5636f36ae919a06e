"""Processes in the world: the command line, the OpenAI-compatible service, launching.

Knows nothing of training loops or arithmetic.
"""
