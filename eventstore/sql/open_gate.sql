-- Promises: events are stored again; true when the gate was shut before. For an operator only.
SELECT runwire.open_gate()
