"""The ledger of model calls, and what a job used in all."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


def upgrade() -> None:
    op.create_table(
        "llm_calls",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "job_id", sa.Uuid, sa.ForeignKey("llm_workflow_jobs.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("claim", sa.Integer, nullable=False),
        sa.Column("step", sa.String(255), nullable=False),
        sa.Column("provider", sa.String(50), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False, server_default=sa.text("'running'")),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("latency_ms", sa.Integer),
        sa.Column("input_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("cost_usd", sa.Numeric(18, 9)),
        sa.Column("retries", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("error_code", sa.String(50)),
        sa.Column("error_message", sa.Text),
        sa.Column("prompt", postgresql.JSONB),
        sa.Column("answer", sa.Text),
    )
    op.create_index("idx_llm_calls_job_id", "llm_calls", ["job_id"])
    # The promise "never paid for twice" as a constraint: one answer for each step of a job.
    op.create_index(
        "idx_llm_calls_answered",
        "llm_calls",
        ["job_id", "step"],
        unique=True,
        postgresql_where=sa.text("status = 'succeeded'"),
    )
    op.add_column("llm_workflow_jobs", sa.Column("total_tokens", sa.Integer))
    op.add_column("llm_workflow_jobs", sa.Column("cost_usd", sa.Numeric(18, 9)))


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
