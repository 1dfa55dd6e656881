-- Promises: the shapes of the log. Times are whole microseconds since 1970 UTC, exactly as the chain hashes them.

-- The life cycle (eventstore/domain/lifecycle.py); append refuses what is not here.
CREATE TABLE runwire.transition (
    status text NOT NULL,
    type   text NOT NULL,
    next   text NOT NULL,
    writer text NOT NULL CHECK (writer IN ('worker', 'api')),
    PRIMARY KEY (status, type)
);

CREATE TABLE runwire.tenant (
    tenant_id uuid PRIMARY KEY,
    name      text NOT NULL UNIQUE
);

CREATE TABLE runwire.api_key (
    key_id     text PRIMARY KEY,
    digest     bytea NOT NULL,
    tenant_id  uuid NOT NULL REFERENCES runwire.tenant,
    subject    text NOT NULL,
    role       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);

-- What the workers can run: written by a worker when it starts, read by the API. It is how the API knows a workflow
-- without importing the worker.
CREATE TABLE runwire.workflow (
    name          text NOT NULL,
    version       integer NOT NULL,
    manifest      jsonb NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name)
);

-- The catalogue: what lists and searches need. A projection of the `accepted` event.
CREATE TABLE runwire.run (
    run_id     uuid PRIMARY KEY,
    tenant_id  uuid NOT NULL REFERENCES runwire.tenant,
    subject    text NOT NULL,
    workflow   text NOT NULL,
    title      text NOT NULL,
    created_us bigint NOT NULL
);
CREATE INDEX run_newest ON runwire.run (tenant_id, run_id DESC);
CREATE INDEX run_newest_of_subject ON runwire.run (tenant_id, subject, run_id DESC);

-- The input of a run, stored once; `accepted` holds its digest.
CREATE TABLE runwire.input (
    run_id uuid PRIMARY KEY,
    body   bytea NOT NULL
);

CREATE TABLE runwire.idempotency (
    tenant_id   uuid NOT NULL,
    subject     text NOT NULL,
    key         text NOT NULL,
    body_digest bytea NOT NULL,
    run_id      uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, subject, key)
);

-- One hot row per run, locked by every append to commit. That lock is why seq order is commit order is the order in
-- which readers see events. No index on what appends write, so its updates stay inside the page. All of it can be rebuilt.
CREATE TABLE runwire.head (
    run_id      uuid PRIMARY KEY,
    tenant_id   uuid NOT NULL,
    status      text NOT NULL,
    seq         integer NOT NULL,
    chain       bytea NOT NULL,
    recorded_us bigint NOT NULL,
    epoch       integer NOT NULL DEFAULT 0,
    lease_until timestamptz,
    owner       text,
    batch_no    integer NOT NULL DEFAULT 0,
    batch_first integer,
    batch_last  integer,
    cancel      boolean NOT NULL DEFAULT false,
    handed_at   timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The log. UUIDv7 is time-ordered, so all events of a run lie in one partition and archiving is a detach.
CREATE TABLE runwire.event (
    run_id      uuid NOT NULL,
    seq         integer NOT NULL,
    epoch       integer NOT NULL,
    version     smallint NOT NULL,
    encoding    smallint NOT NULL,
    type        text NOT NULL,
    occurred_us bigint NOT NULL,
    recorded_us bigint NOT NULL,
    key_id      uuid,
    chain       bytea NOT NULL,
    body        bytea NOT NULL,
    PRIMARY KEY (run_id, seq)
) PARTITION BY RANGE (run_id);
