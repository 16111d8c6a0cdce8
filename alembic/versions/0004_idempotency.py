"""Idempotency keys: the 202 that a key got, kept apart from its job."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


def upgrade() -> None:
    op.create_table(
        "llm_idempotency_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("body_hash", sa.LargeBinary, nullable=False),
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("workflow_name", sa.String(100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_index("idx_idempotency_keys_created_at", "llm_idempotency_keys", ["created_at"])


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
