"""The one place where plugins are found: Python entry points in the groups `understudy.*`.

Does not know what a plugin does; ours are declared in pyproject.toml like anybody else's.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from agents.errors import InputError, NotFound

Group = Literal["agent_types", "judges", "models", "rules", "training"]


@cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """Return the plugins of a group by name; raise InputError when two claim the same name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"understudy.{group}"):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise InputError(
                f"Two plugins claim {group}/{point.name}: {other.value} and {point.value}.",
                "Uninstall one of the packages that declare them.",
            )
    return found


def load_plugin(group: Group, name: str) -> Any:
    """Import and return a plugin; raise NotFound with the names that exist."""
    known = plugins(group)
    if name not in known:
        raise NotFound(
            f"There is no {group.rstrip('s').replace('_', ' ')} plugin {name!r}.",
            f"Known: {', '.join(sorted(known)) or 'none'}. "
            f"Plugins are entry points in the group understudy.{group}.",
        )
    return known[name].load()
