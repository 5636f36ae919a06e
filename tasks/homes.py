"""Which home the workers of a Prefect server keep things in, so that a command in another one can say so.

Does not know what is in a home. Workers say where they are whenever the schedule looks.
"""

from __future__ import annotations

import os

from tasks.storage.engines import home_name
from tasks.storage.settings import ON_WORKER, read_settings

VARIABLE = "understudy_home"


async def tell_home() -> None:
    """Have the Prefect server remember the home of this worker; elsewhere do nothing."""
    if ON_WORKER not in os.environ:
        return
    from prefect.variables import Variable

    here = home_name(read_settings())
    if await home_of_workers() != here:
        await Variable.aset(VARIABLE, here, overwrite=True)


async def home_of_workers() -> str | None:
    """Return the home that a worker of the server named last, or None before any did."""
    from prefect.variables import Variable

    found = await Variable.aget(VARIABLE)
    return None if found is None else str(found)
