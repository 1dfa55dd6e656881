-- Promises: the shapes of the seal. docs/evidence-format.md says what the bytes mean.

-- Which log this is: part of every checkpoint's origin. A copy and a restored backup keep it, another database has another.
CREATE TABLE runwire.identity (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    log_id uuid NOT NULL
);
INSERT INTO runwire.identity (log_id) VALUES (gen_random_uuid());

-- The log of blocks: number n is leaf n - 1 of the tree. `header` and `entries` are the hashed bytes. What is beside them
-- can be derived: `firsts` holds per entry the first seq that is new in this block (4 bytes each), `nodes` the hashes of
-- the perfect subtrees that this leaf completes (leaf first), so that a root or a proof is a look-up of a few rows.
CREATE TABLE runwire.block (
    block_no  bigint PRIMARY KEY,
    header    bytea NOT NULL,
    entries   bytea NOT NULL,
    statement bytea,
    firsts    bytea NOT NULL,
    nodes     bytea NOT NULL,
    CHECK (octet_length(header) IN (62, 94) AND octet_length(entries) % 69 = 0
           AND octet_length(firsts) * 69 = octet_length(entries) * 4)
);
ALTER TABLE runwire.block ALTER COLUMN entries SET STORAGE EXTERNAL; -- hashes do not compress

-- Checkpoints as they were signed and published, one per size of the log that was signed.
CREATE TABLE runwire.checkpoint (
    size      bigint PRIMARY KEY,
    note      text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Where each run stood in the last block that names it. All of it can be rebuilt from the blocks.
CREATE TABLE runwire.sealed (
    run_id   uuid PRIMARY KEY,
    seq      integer NOT NULL,
    chain    bytea NOT NULL,
    closed   boolean NOT NULL,
    block_no bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- One leader among the sealers, fenced by its epoch as the owner of a run is.
CREATE TABLE runwire.sealer (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    epoch       integer NOT NULL DEFAULT 0,
    owner       text,
    lease_until timestamptz
);
INSERT INTO runwire.sealer DEFAULT VALUES;

-- Whether the log takes events, and since when and why it does not. The trigger log_is_shut is what refuses them.
CREATE TABLE runwire.gate (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    shut  boolean NOT NULL DEFAULT false,
    why   text,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO runwire.gate DEFAULT VALUES;

-- How far what was sealed has been walked again, event by event: the last block that is done, and how many runs of the
-- one after it. And the runs that did not fit their chain.
CREATE TABLE runwire.followed (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    block_no bigint NOT NULL DEFAULT 0,
    place    integer NOT NULL DEFAULT 0,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO runwire.followed DEFAULT VALUES;

CREATE TABLE runwire.mismatch (
    run_id   uuid NOT NULL,
    block_no bigint NOT NULL,
    seq      integer NOT NULL,
    fault    text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, block_no)
);

SELECT runwire.make_append_only('runwire.mismatch');
SELECT runwire.make_append_only('runwire.block');
SELECT runwire.make_append_only('runwire.checkpoint');
SELECT runwire.make_append_only('runwire.identity');
