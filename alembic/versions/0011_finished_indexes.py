"""The indexes by which the queue page lists jobs in the order in which they ended."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"

JOBS = "llm_workflow_jobs"
LAST_FIRST = ["completed_at DESC", "id DESC"]

# Jobs that have not ended are in none of them: a submit and a claim write nothing here.
INDEXES = {
    "idx_workflow_jobs_finished": LAST_FIRST,
    "idx_workflow_jobs_finished_status": ["status", *LAST_FIRST],
    **{
        f"idx_workflow_jobs_finished_{column}": [column, *LAST_FIRST, "status"]
        for column in ("user_id", "username", "action", "workflow_name")
    },
    "idx_workflow_jobs_finished_error_code": ["error_code", *LAST_FIRST],
}


def upgrade() -> None:
    # Concurrently, and under a name of its own until it is built, as the list's other indexes.
    with op.get_context().autocommit_block():
        for name, columns in INDEXES.items():
            coded = " AND error_code IS NOT NULL" if "error_code" in columns else ""
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_build")
            op.execute(
                f"CREATE INDEX CONCURRENTLY {name}_build ON {JOBS} ({', '.join(columns)}) "
                f"WHERE completed_at IS NOT NULL{coded}"
            )
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"ALTER INDEX {name}_build RENAME TO {name}")


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
