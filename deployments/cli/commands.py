"""All commands: importing this module registers every one of them with the application.

Does not know what they do.
"""

from __future__ import annotations

from deployments.cli import data, loop, operation, stage
from deployments.cli.app import app

__all__ = ["app", "data", "loop", "operation", "stage"]
