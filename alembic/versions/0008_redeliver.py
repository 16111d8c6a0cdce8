"""How many tries a delivery had when it was last sent again: its schedule counts from there."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


def upgrade() -> None:
    op.add_column(
        "llm_webhook_deliveries",
        sa.Column("tries_before", sa.Integer, nullable=False, server_default=sa.text("0")),
    )


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
