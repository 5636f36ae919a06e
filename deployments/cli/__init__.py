"""The command `understudy`: its entry point, and where errors become one line and an exit code.

Does not know what any command does; importing it loads none of them.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    import typer
    from typer.exceptions import TyperException

    from agents.errors import UnderstudyError
    from deployments.cli.commands import app
    from deployments.cli.console import fail, warn

    try:
        code = app(standalone_mode=False) or 0
    except UnderstudyError as error:
        code = fail(error)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
        warn("stopped. The same command continues where it was; a job that was submitted runs on.")
    except typer.Exit as end:
        code = end.exit_code
    except TyperException as error:
        code = 2
        warn(f"{_usage(error)} `understudy --help` lists what there is.")
    sys.exit(code)


def _usage(error: Exception) -> str:
    """Return what was wrong with the arguments, with the name of the one that was."""
    described = getattr(error, "format_message", None)
    return str(described() if described else error)
