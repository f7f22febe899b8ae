"""Runs, attempts, events, definitions, workers, files, and the leader's row.

The states, event types and reasons in the CHECKs are those of `gyoza.models`; a test compares them.
"""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE cluster (
        one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "INSERT INTO cluster DEFAULT VALUES",
    """
    CREATE TABLE leader (
        one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
        epoch bigint NOT NULL DEFAULT 0,
        holder text,
        expires_at timestamptz NOT NULL DEFAULT '-infinity'
    )
    """,
    "INSERT INTO leader DEFAULT VALUES",
    """
    CREATE TABLE revisions (
        name text NOT NULL,
        revision integer NOT NULL,
        version text,
        digest text NOT NULL,
        content json NOT NULL,
        deployed_at timestamptz NOT NULL,
        PRIMARY KEY (name, revision),
        UNIQUE (name, digest)
    )
    """,
    "CREATE INDEX revisions_latest ON revisions (name, deployed_at DESC, revision DESC)",
    """
    CREATE TABLE workers (
        id text PRIMARY KEY,
        instance text NOT NULL,
        former text[] NOT NULL DEFAULT '{}',
        host_id text NOT NULL,
        seq bigint NOT NULL,
        resources json NOT NULL,
        tags text[] NOT NULL,
        engines text[] NOT NULL,
        version text,
        images text[] NOT NULL,
        drain boolean NOT NULL DEFAULT false,
        registered_at timestamptz NOT NULL,
        seen_at timestamptz NOT NULL,
        evicted_at timestamptz,
        forgotten boolean NOT NULL DEFAULT false
    )
    """,
    "CREATE INDEX workers_living ON workers (seen_at) WHERE evicted_at IS NULL",
    """
    CREATE TABLE runs (
        id uuid PRIMARY KEY,
        state text NOT NULL
            CHECK (state IN ('PENDING', 'ASSIGNED', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
        priority integer NOT NULL CHECK (priority BETWEEN -1000 AND 1000),
        image text,
        op_definition text,
        revision integer,
        version text,
        inputs json NOT NULL,
        cpu_m integer CHECK (cpu_m >= 0),
        ram_mb integer CHECK (ram_mb >= 0),
        vram_mb integer CHECK (vram_mb >= 0),
        max_attempts integer NOT NULL CHECK (max_attempts >= 1),
        event_delivery json,
        timeouts json,
        tags text[] NOT NULL DEFAULT '{}',
        submitted_by text,
        run_at timestamptz,
        engines text[] NOT NULL CHECK (engines <> '{}'),
        shape text NOT NULL GENERATED ALWAYS AS (
            coalesce(cpu_m::text, '') || ':' || coalesce(ram_mb::text, '') || ':' || coalesce(vram_mb::text, '')
            || ':' || (engines)[1] || ':' || coalesce((engines)[2], '')
        ) STORED,
        current_attempt integer NOT NULL DEFAULT 1 CHECK (current_attempt >= 1),
        user_failures integer NOT NULL DEFAULT 0,
        infra_losses integer NOT NULL DEFAULT 0,
        next_event integer NOT NULL DEFAULT 0,
        queue_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        FOREIGN KEY (op_definition, revision) REFERENCES revisions (name, revision),
        CHECK ((op_definition IS NULL) = (revision IS NULL))
    )
    """,
    "CREATE INDEX runs_newest ON runs (created_at, id)",
    "CREATE INDEX runs_by_state ON runs (state, created_at, id)",
    "CREATE INDEX runs_by_definition ON runs (op_definition, created_at, id)",
    "CREATE INDEX runs_by_image ON runs (image, created_at, id)",
    "CREATE INDEX runs_queue ON runs (shape, queue_at, id) WHERE state = 'PENDING'",
    """
    CREATE TABLE attempts (
        run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        attempt integer NOT NULL CHECK (attempt >= 1),
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        state text NOT NULL
            CHECK (state IN ('PENDING', 'ASSIGNED', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
        progress integer NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100),
        outputs json,
        reason text CHECK (reason IN (
            'op_error', 'oom_killed', 'gpu_memory_exceeded', 'run_timeout', 'invalid_output', 'image_not_found',
            'bundle_broken', 'not_allowed', 'image_pull_failed', 'start_failed', 'start_timeout', 'disk_full',
            'worker_lost', 'released', 'declined', 'drained', 'preempted', 'queue_timeout', 'expired', 'cancelled',
            'external')),
        summary json NOT NULL DEFAULT '{}',
        cpu_m integer,
        ram_mb integer,
        vram_mb integer,
        held_by text REFERENCES workers (id),
        lease_token text,
        gpu_ids integer[] NOT NULL DEFAULT '{}',
        last_report integer NOT NULL DEFAULT 0,
        assigned_at timestamptz,
        acknowledged_at timestamptz,
        started_at timestamptz,
        finished_at timestamptz,
        settled_at timestamptz,
        PRIMARY KEY (run_id, attempt),
        CHECK ((held_by IS NULL) = (lease_token IS NULL)),
        CHECK ((held_by IS NULL) = (assigned_at IS NULL)),
        CHECK (state <> 'ASSIGNED' OR held_by IS NOT NULL),
        CHECK ((state IN ('COMPLETED', 'FAILED', 'CANCELLED')) = (finished_at IS NOT NULL)),
        CHECK ((state IN ('FAILED', 'CANCELLED')) = (reason IS NOT NULL)),
        CHECK (settled_at IS NULL OR finished_at IS NOT NULL),
        CHECK (held_by IS NOT NULL OR finished_at IS NULL OR settled_at IS NOT NULL)
    )
    """,
    "CREATE INDEX attempts_held ON attempts (held_by) WHERE held_by IS NOT NULL AND settled_at IS NULL",
    """
    CREATE TABLE events (
        run_id uuid NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        n integer NOT NULL CHECK (n >= 0),
        attempt integer NOT NULL,
        type text NOT NULL CHECK (type IN (
            'ASSIGNED', 'STARTED', 'INFO', 'PROGRESS', 'COMPLETED', 'FAILED', 'CANCELLED', 'ERROR', 'RETRIED')),
        t timestamptz NOT NULL,
        at timestamptz,
        msg json NOT NULL,
        payload json,
        PRIMARY KEY (run_id, n)
    )
    """,
    "CREATE INDEX events_of_attempt ON events (run_id, attempt, n)",
    """
    CREATE TABLE files (
        id uuid PRIMARY KEY,
        sha256 text NOT NULL,
        name text NOT NULL,
        media_type text NOT NULL,
        size bigint NOT NULL CHECK (size >= 0),
        created_at timestamptz NOT NULL,
        UNIQUE (sha256, name, media_type)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
