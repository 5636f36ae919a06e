"""Leave the cost of a call open where nobody knows its price."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    for name in ("calls", "drafts"):
        with op.batch_alter_table(name) as table:
            table.alter_column("cost", existing_type=sa.Float(), nullable=True)


def downgrade() -> None:
    """Take the change back; an unknown cost becomes 0."""
    for name in ("calls", "drafts"):
        op.execute(f"UPDATE {name} SET cost = 0 WHERE cost IS NULL")  # noqa: S608
        with op.batch_alter_table(name) as table:
            table.alter_column("cost", existing_type=sa.Float(), nullable=False)
