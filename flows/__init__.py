"""The story, one flow per file: order, fan-out, reporting.

Knows nothing of SQL, provider SDKs or prompts.
"""
