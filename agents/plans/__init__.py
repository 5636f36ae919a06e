"""Plans: how many workplace conversations of each kind and length are written, exactly.

Does not know how one is written. A plan is a YAML of counts; where it counts in two ways, by length and
by participants, its cells are fitted to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

from agents.counts import Margins, fit_table, largest_remainder
from agents.definitions import Definition, Problem, parse_definition, read_text, validate_definition
from agents.errors import InputError, NotFound
from agents.kinds import GroupSize, Kind, Kinds, Length, kind_problems, load_kinds, refuse
from agents.plans.file import PlanFile, plan_problems
from agents.schemas import Frozen, Slug

FOLDER = Path(__file__).parent
SUFFIXES = {".yaml", ".yml"}


class Cell(Frozen):
    """How many conversations of one kind and length: as the file says, and as planned."""

    length: Length
    group: GroupSize
    kind: Slug
    written: int
    planned: int

    @property
    def moved(self) -> int:
        """Return how far fitting moved the count."""
        return self.planned - self.written


class Plan(Frozen):
    """A plan whose cells add up, with the kinds that they name."""

    name: Slug
    cells: tuple[Cell, ...]
    kinds: Kinds

    @property
    def total(self) -> int:
        """Return the number of conversations."""
        return sum(cell.planned for cell in self.cells)

    def kind(self, cell: Cell) -> Kind:
        """Return the kind of a cell."""
        return next(kind for kind in reversed(self.kinds.kinds) if kind.name == cell.kind)

    def scaled(self, total: int) -> tuple[int, ...]:
        """Return the count of each cell when `total` conversations are written in the plan's proportions.

        Largest remainders are given out among the lengths, then among the groups of a length, then among
        its kinds, so that every cell and every one of these sums is within 1 of its exact share.
        """
        shares = [Fraction(cell.planned * total, self.total) for cell in self.cells]
        counts = [0] * len(shares)
        self._give(range(len(shares)), total, shares, counts, level=1)
        return tuple(counts)

    def _give(
        self, members: Sequence[int], total: int, shares: Sequence[Fraction], counts: list[int], *, level: int
    ) -> None:
        """Divide a total among the cells: first among the groups of a level (1 to 3), then within each."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for at in members:
            cell = self.cells[at]
            groups.setdefault((cell.length, cell.group, cell.kind)[:level], []).append(at)
        quotas = [sum((shares[at] for at in group), Fraction()) for group in groups.values()]
        for group, count in zip(groups.values(), largest_remainder(quotas, total), strict=True):
            if level == 3:
                counts[group[0]] = count
            else:
                self._give(group, count, shares, counts, level=level + 1)


@cache
def shipped_plans() -> tuple[str, ...]:
    """Return the names of the plans that ship, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_plan(name_or_path: str) -> Plan:
    """Return a plan that ships, by name, or one of your own, by the path of its YAML file.

    Raises NotFound with the names that ship, InputError with file, line and field of each problem, sums
    that do not add up among them.
    """
    path = Path(name_or_path)
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        return parse_plan(read_text(path), str(path))
    if name_or_path in shipped_plans():
        return _load_shipped(name_or_path)
    raise NotFound(
        f"There is no plan {name_or_path!r}.",
        f"Known: {', '.join(shipped_plans())}; or give the path of a YAML file of your own.",
    )


@cache
def _load_shipped(name: str) -> Plan:
    path = FOLDER / f"{name}.yaml"
    return parse_plan(read_text(path), path.name)


def parse_plan(text: str, source: str = "plan") -> Plan:
    """Return the plan of a YAML text; `source` names it in messages. Raises InputError like `load_plan`."""
    definition = parse_definition(text, source)
    file = validate_definition(definition, PlanFile)
    known = load_kinds()
    refuse(definition, kind_problems(file.kinds, known.bands))
    kinds = known.model_copy(update={"kinds": known.kinds + file.kinds})
    refuse(definition, plan_problems(file, kinds))
    return Plan(name=file.name, cells=_fitted(file, definition), kinds=kinds)


def _fitted(file: PlanFile, definition: Definition) -> tuple[Cell, ...]:
    """Return the cells, fitted to both ways of counting where there are two."""
    written = file.cells()
    planned: Sequence[int] = tuple(written.values())
    if file.participants:
        try:
            planned = fit_table(planned, _margins(file))
        except InputError as error:
            raise InputError(
                definition.report([Problem(("participants",), str(error))]),
                "Change the totals, or give the cells that lack something a count above 0.",
            ) from error
    return tuple(
        Cell(length=length, group=size, kind=kind, written=count, planned=now)
        for ((length, size, kind), count), now in zip(written.items(), planned, strict=True)
    )


def _margins(file: PlanFile) -> Margins:
    rows = {(size, kind): f"{name} ({size})" for size, name, row in file.rows() for kind in row.kinds}
    return Margins(
        rows=tuple(rows[size, kind] for _, size, kind in file.cells()),
        columns=tuple(length for length, _, _ in file.cells()),
        row_totals={f"{name} ({size})": row.total for size, name, row in file.rows()},
        column_totals={length: plan.total for length, plan in file.lengths.items()},
    )
