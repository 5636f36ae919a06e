"""Remember who judges a round, and how often its next step was asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    with op.batch_alter_table("rounds") as table:
        table.add_column(sa.Column("judge", sa.String(), nullable=True))
        table.add_column(sa.Column("asked", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Take the change back."""
    with op.batch_alter_table("rounds") as table:
        table.drop_column("asked")
        table.drop_column("judge")
