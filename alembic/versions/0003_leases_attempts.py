"""Leases that fence every write of a worker, attempts, and the workers themselves."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


JOBS = "llm_workflow_jobs"


def upgrade() -> None:
    # Constant defaults: none of these rewrites the table.
    for column in (
        sa.Column("error_code", sa.String(50)),
        sa.Column("attempt", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("claims", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("max_attempts", sa.SmallInteger, nullable=False, server_default=sa.text("3")),
        sa.Column("lease_token", sa.Uuid),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("worker", sa.String(255)),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("hinted_at", sa.DateTime(timezone=True)),
        sa.Column("request_id", sa.String(64)),
        sa.Column("retried_from", sa.Uuid),
    ):
        op.add_column(JOBS, column)
    # An encrypted secret is longer than the 255 characters that a caller may send.
    op.alter_column(JOBS, "webhook_secret", type_=sa.Text, existing_type=sa.String(255))
    # Beats move the lease: room on each page keeps those updates off the indexes.
    op.execute(f"ALTER TABLE {JOBS} SET (fillfactor = 90)")

    op.create_table(
        "llm_job_attempts",
        sa.Column("job_id", sa.Uuid, sa.ForeignKey(f"{JOBS}.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("claim", sa.Integer, primary_key=True),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("outcome", sa.String(16), nullable=False, server_default=sa.text("'running'")),
        sa.Column("error_code", sa.String(50)),
    )
    op.create_table(
        "llm_workers",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("running", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("concurrency", sa.Integer, nullable=False, server_default=sa.text("0")),
    )


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
