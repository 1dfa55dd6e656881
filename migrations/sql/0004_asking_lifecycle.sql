-- Promises: the rows of eventstore/domain/lifecycle.py for questions and decisions. No result while a person is asked.
INSERT INTO runwire.transition (status, type, next, writer) VALUES
    ('running', 'escalation',       'waiting',   'worker'),
    ('running', 'decision',         'running',   'api'),
    ('waiting', 'progress',         'waiting',   'worker'),
    ('waiting', 'reasoning',        'waiting',   'worker'),
    ('waiting', 'token',            'waiting',   'worker'),
    ('waiting', 'tool_call',        'waiting',   'worker'),
    ('waiting', 'tool_result',      'waiting',   'worker'),
    ('waiting', 'finding',          'waiting',   'worker'),
    ('waiting', 'step',             'waiting',   'worker'),
    ('waiting', 'model_call',       'waiting',   'worker'),
    ('waiting', 'retry',            'waiting',   'worker'),
    ('waiting', 'validation',       'waiting',   'worker'),
    ('waiting', 'started',          'waiting',   'worker'),
    ('waiting', 'escalation',       'waiting',   'worker'),
    ('waiting', 'decision',         'running',   'api'),
    ('waiting', 'cancel_requested', 'stopping',  'api'),
    ('waiting', 'cancelled',        'cancelled', 'worker'),
    ('waiting', 'error',            'failed',    'worker');

-- due_at: nobody need look at this run before, unless the API writes to it. parked: how often an owner gave it back
-- because all of it waited, which is no failed attempt. Nothing that appends write, so their updates stay in the page.
ALTER TABLE runwire.head ADD COLUMN due_at timestamptz, ADD COLUMN parked integer NOT NULL DEFAULT 0;
