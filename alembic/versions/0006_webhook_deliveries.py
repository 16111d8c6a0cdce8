"""Webhook deliveries and each of their tries."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


def upgrade() -> None:
    op.add_column(
        "llm_workflow_jobs",
        sa.Column("webhook_state", sa.String(16), nullable=False, server_default=sa.text("'none'")),
    )
    op.create_table(
        "llm_webhook_deliveries",
        sa.Column(
            "job_id", sa.Uuid, sa.ForeignKey("llm_workflow_jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("webhook_id", sa.String(64), nullable=False, unique=True),
        sa.Column("event", sa.String(50), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, server_default=sa.text("'pending'")),
        sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("hinted_at", sa.DateTime(timezone=True)),
        sa.Column("lease_token", sa.Uuid),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_index(
        "idx_webhook_deliveries_due",
        "llm_webhook_deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_table(
        "llm_webhook_attempts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "job_id",
            sa.Uuid,
            sa.ForeignKey("llm_webhook_deliveries.job_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("status_code", sa.Integer),
        sa.Column("latency_ms", sa.Integer),
        sa.Column("response", sa.Text),
        sa.Column("error", sa.Text),
        sa.UniqueConstraint("job_id", "number", name="uq_webhook_attempts_number"),
    )


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
