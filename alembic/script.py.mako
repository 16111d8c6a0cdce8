"""${message}."""

from pathlib import Path

import sqlalchemy as sa

from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

DOWN = Path(__file__).with_suffix("") / "down.sql"


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    for statement in filter(str.strip, DOWN.read_text().split(";\n")):
        op.execute(statement)
