"""Who may look into the queue page, and what was done there: sessions, wrong tries, audit."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def upgrade() -> None:
    op.create_table(
        "llm_admin_sessions",
        sa.Column("token_hash", sa.LargeBinary, primary_key=True),
        _moment("created_at"),
        _moment("last_seen_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "llm_admin_audit",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _moment("at"),
        sa.Column("session", sa.String(16), nullable=False),
        sa.Column("action", sa.String(50), nullable=False),
        sa.Column("filter", sa.Text),
        sa.Column("job_ids", ARRAY(sa.Uuid), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("matched", sa.Integer, nullable=False),
        *(
            sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0"))
            for name in ("done", "skipped", "failed")
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("request_id", sa.String(64)),
    )
    op.create_index("idx_admin_audit_at", "llm_admin_audit", [sa.text("at DESC")])
    op.create_table(
        "llm_admin_logins",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        _moment("at"),
        sa.Column("peer", sa.String(64), nullable=False),
    )
    op.create_index("idx_admin_logins_at", "llm_admin_logins", ["at"])
    op.create_index("idx_admin_logins_peer", "llm_admin_logins", ["peer", "at"])


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
