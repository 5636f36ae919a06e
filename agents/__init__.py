"""Minds and their language: personas, prompts, models, rules and judges.

Knows nothing of Prefect, databases, environment variables or HTTP servers.
"""
