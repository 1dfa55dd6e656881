-- Promises: what this transaction says next is given up by the server after so many milliseconds.
SELECT set_config('statement_timeout', %(ms)s::text, true)
