"""What a session of the queue page may do."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


def upgrade() -> None:
    # Whoever is logged in now had the one password there was, which may do everything.
    role = sa.Column("role", sa.String(16), nullable=False, server_default=sa.text("'admin'"))
    op.add_column("llm_admin_sessions", role)


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
