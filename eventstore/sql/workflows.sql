-- Promises: what the workers said that they can run. A handful of rows.
SELECT name, version, manifest FROM runwire.workflow ORDER BY name
