"""Who asked and what they were doing: username and action."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


def upgrade() -> None:
    op.add_column(
        "llm_workflow_jobs",
        sa.Column(
            "username",
            sa.String(255),
            comment="Who asked, as shown to admins; null for jobs from before this column",
        ),
    )
    op.add_column(
        "llm_workflow_jobs",
        sa.Column(
            "action",
            sa.String(255),
            comment='What the user was doing, e.g. "generate mission report"; null if unknown',
        ),
    )


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
