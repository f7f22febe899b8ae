"""What the whole contract needs: keys, idempotency, the feed, logs, deadlines, tags, retention, disabled definitions.

Only adds, so that a server of the step before goes on working beside newer ones. What it writes meanwhile is kept, but
not published: streams do not show it, and such runs are not deleted by age. Let old servers go within the upgrade.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    # --- runs: what is asked for, and what lists and retention find them by
    """
    ALTER TABLE runs
        ADD COLUMN retry json,
        ADD COLUMN due boolean NOT NULL DEFAULT true,
        ADD COLUMN delete_after_s double precision CHECK (delete_after_s >= 0),
        ADD COLUMN delete_at timestamptz,
        ADD COLUMN ended_at timestamptz,
        ADD COLUMN pinned boolean NOT NULL DEFAULT false,
        ADD COLUMN reason text,
        ADD COLUMN worker_id text,
        ADD COLUMN replay_of uuid
    """,
    """
    UPDATE runs SET reason = a.reason, ended_at = a.finished_at,
        worker_id = CASE WHEN length(a.summary->>'worker_id') > 600 THEN NULL
            ELSE coalesce(nullif(a.summary->>'worker_id', ''), a.held_by) END
    FROM attempts a WHERE a.run_id = runs.id AND a.attempt = runs.current_attempt
    """,
    "DROP INDEX runs_queue",
    "CREATE INDEX runs_queue ON runs (shape, queue_at, id) WHERE state = 'PENDING' AND due",
    "CREATE INDEX runs_delayed ON runs (run_at) WHERE state = 'PENDING' AND NOT due",
    "CREATE INDEX runs_by_definition_and_state ON runs (op_definition, state, created_at, id)",
    "CREATE INDEX runs_by_submitter ON runs (submitted_by, created_at, id)",
    "CREATE INDEX runs_by_reason ON runs (reason, created_at, id) WHERE reason IS NOT NULL",
    "CREATE INDEX runs_by_worker ON runs (worker_id, created_at, id) WHERE worker_id IS NOT NULL",
    """
    CREATE INDEX runs_ended ON runs (ended_at)
        WHERE ended_at IS NOT NULL AND delete_after_s IS NULL AND NOT pinned
    """,
    "CREATE INDEX runs_leaving ON runs (delete_at) WHERE delete_at IS NOT NULL AND NOT pinned",
    """
    CREATE TABLE run_tags (
        tag text NOT NULL,
        created_at timestamptz NOT NULL,
        run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        PRIMARY KEY (tag, created_at, run_id)
    )
    """,
    "INSERT INTO run_tags SELECT DISTINCT unnest(tags), created_at, id FROM runs WHERE tags <> '{}'",
    "CREATE INDEX run_tags_of_run ON run_tags (run_id)",
    # --- attempts: until when what they do now may last
    "ALTER TABLE attempts ADD COLUMN deadline timestamptz",
    """
    UPDATE attempts a SET deadline = CASE a.state
        WHEN 'PENDING' THEN r.queue_at + r.priority * interval '1 hour'
            + make_interval(secs => (r.timeouts->>'queue_s')::float)
        WHEN 'ASSIGNED' THEN a.assigned_at + make_interval(secs => coalesce((r.timeouts->>'start_s')::float, 60))
        WHEN 'RUNNING' THEN a.started_at + make_interval(
            secs => (r.timeouts->>'run_s')::float + CASE WHEN a.held_by IS NULL THEN 0 ELSE 60 END)
        END
    FROM runs r
    WHERE r.id = a.run_id AND a.finished_at IS NULL AND (a.state <> 'ASSIGNED' OR a.acknowledged_at IS NULL)
    """,
    "CREATE INDEX attempts_due ON attempts (deadline) WHERE deadline IS NOT NULL AND finished_at IS NULL",
    # --- definitions: what is true of all revisions of a name
    """
    CREATE TABLE definitions (
        name text PRIMARY KEY,
        disabled_at timestamptz,
        deleted_at timestamptz
    )
    """,
    "ALTER TABLE revisions ADD COLUMN newest boolean NOT NULL DEFAULT true",
    """
    UPDATE revisions r SET newest = false WHERE EXISTS (
        SELECT FROM revisions o WHERE o.name = r.name AND o.version IS NOT DISTINCT FROM r.version
            AND (o.deployed_at, o.revision) > (r.deployed_at, r.revision))
    """,
    "CREATE INDEX revisions_newest ON revisions (name, version) WHERE newest",
    "CREATE INDEX revisions_of_version ON revisions (name, version, deployed_at DESC, revision DESC)",
    # --- keys
    """
    CREATE TABLE keys (
        id uuid PRIMARY KEY,
        name text NOT NULL,
        hash bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
        hint text NOT NULL,
        scopes text[] NOT NULL CHECK (scopes <> '{}' AND scopes <@ ARRAY['admin', 'submit', 'read', 'worker']),
        worker text,
        created_at timestamptz NOT NULL,
        created_by text NOT NULL,
        expires_at timestamptz,
        revoked_at timestamptz,
        last_used_at timestamptz,
        CHECK ((worker IS NOT NULL) = ('worker' = ANY (scopes))),
        CHECK (worker IS NULL OR scopes = '{worker}')
    )
    """,
    # --- answers given once
    """
    CREATE TABLE idempotency (
        owner text NOT NULL,
        key text NOT NULL,
        fingerprint bytea NOT NULL,
        status integer NOT NULL,
        answer bytea NOT NULL,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (owner, key)
    )
    """,
    "CREATE INDEX idempotency_expiring ON idempotency (expires_at)",
    # --- the feed: what was committed, then what was published, in one order for all
    """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        run_id uuid NOT NULL,
        n integer NOT NULL
    )
    """,
    """
    CREATE TABLE feed (
        pos bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        run_id uuid NOT NULL,
        n integer NOT NULL
    )
    """,
    "INSERT INTO feed (run_id, n) SELECT run_id, n FROM events ORDER BY t, run_id, n",
    "CREATE INDEX feed_of_run ON feed (run_id, n)",
    "CREATE INDEX events_moving ON events (run_id, n) WHERE type NOT IN ('INFO', 'ERROR', 'PROGRESS')",
    # --- logs: the index; the bytes lie in the file store
    """
    CREATE TABLE logs (
        run_id uuid NOT NULL,
        attempt integer NOT NULL,
        size bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
        cut boolean NOT NULL DEFAULT false,
        PRIMARY KEY (run_id, attempt),
        FOREIGN KEY (run_id, attempt) REFERENCES attempts (run_id, attempt) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE log_chunks (
        run_id uuid NOT NULL,
        attempt integer NOT NULL,
        start bigint NOT NULL CHECK (start >= 0),
        size integer NOT NULL CHECK (size > 0),
        name text NOT NULL,
        PRIMARY KEY (run_id, attempt, start),
        FOREIGN KEY (run_id, attempt) REFERENCES logs (run_id, attempt) ON DELETE CASCADE
    )
    """,
    "CREATE TABLE log_discards (run_id uuid PRIMARY KEY, due timestamptz NOT NULL)",
    "CREATE INDEX log_discards_due ON log_discards (due)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
