-- Promises: this transaction is on disk, and on every standby that commits wait for, before its commit is answered; and
-- that it may take its time: the first look at a large log does, and a place outside that is far away.
SELECT set_config('synchronous_commit', 'on', true), set_config('statement_timeout', '120s', true),
       set_config('idle_in_transaction_session_timeout', '120s', true)
