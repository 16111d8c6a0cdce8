"""The indexes that the list of jobs and the reconciler read by."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

DOWN = Path(__file__).with_suffix("") / "down.sql"


JOBS = "llm_workflow_jobs"
NEWEST_FIRST = ["created_at DESC", "id DESC"]
UNFINISHED = "status IN ('pending', 'processing')"

INDEXES = {
    "idx_workflow_jobs_created_at": (NEWEST_FIRST, None),
    **{
        # The status comes last: with it, one index answers "failed jobs of this user, newest first" from its
        # own pages. A change of status writes to every index of the table anyway.
        f"idx_workflow_jobs_{column}": ([column, *NEWEST_FIRST, "status"], None)
        for column in ("user_id", "username", "action", "workflow_name")
    },
    "idx_workflow_jobs_status": (["status", *NEWEST_FIRST], None),
    "idx_workflow_jobs_error_code": (["error_code", *NEWEST_FIRST], "error_code IS NOT NULL"),
    "idx_workflow_jobs_unfinished": (NEWEST_FIRST, UNFINISHED),
    "idx_workflow_jobs_due": (["status", "run_after"], UNFINISHED),
}


def upgrade() -> None:
    # Concurrently: a table of millions is read and written all the while. That takes no transaction, so each
    # index is built under a name of its own and then put in its place: a run that was cut off can be repeated.
    with op.get_context().autocommit_block():
        for name, (columns, condition) in INDEXES.items():
            where = f" WHERE {condition}" if condition else ""
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}_build")
            op.execute(f"CREATE INDEX CONCURRENTLY {name}_build ON {JOBS} ({', '.join(columns)}){where}")
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"ALTER INDEX {name}_build RENAME TO {name}")
        # A user has one name: without this the planner multiplies the two chances, expects next to no row,
        # and sorts everything the user ever did.
        op.execute(
            f"CREATE STATISTICS IF NOT EXISTS {JOBS}_who (dependencies) ON user_id, username FROM {JOBS}"
        )
        op.execute(f"ANALYZE {JOBS}")


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
