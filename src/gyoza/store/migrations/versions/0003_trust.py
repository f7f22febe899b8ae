"""Workers that are waited for although they are silent, and workers in quarantine.

Only adds, so that a server of the step before goes on working beside newer ones. It knows of neither: it takes back at
once what a silent worker held, and hands runs to a worker in quarantine. Let old servers go within the upgrade.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    """
    ALTER TABLE workers
        ADD COLUMN awaited_until timestamptz,
        ADD COLUMN quarantined_at timestamptz,
        ADD COLUMN quarantine_cause text CHECK (quarantine_cause IN ('broken', 'failing')),
        ADD COLUMN quarantine_reason text,
        ADD COLUMN canary_at timestamptz,
        ADD COLUMN canaries integer NOT NULL DEFAULT 0 CHECK (canaries >= 0),
        ADD COLUMN trusted_at timestamptz,
        ADD CHECK ((quarantined_at IS NULL) = (quarantine_cause IS NULL)),
        ADD CHECK ((quarantined_at IS NULL) = (quarantine_reason IS NULL)),
        ADD CHECK ((quarantined_at IS NULL) = (canary_at IS NULL))
    """,
    "CREATE INDEX workers_awaited ON workers (awaited_until) WHERE awaited_until IS NOT NULL",
    """
    CREATE INDEX attempts_ended ON attempts (held_by, finished_at) INCLUDE (reason)
        WHERE held_by IS NOT NULL AND finished_at IS NOT NULL
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
