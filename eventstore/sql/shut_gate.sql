-- Promises: no event is stored from the commit on; true when the gate was open before.
SELECT runwire.shut_gate(%(why)s::text)
