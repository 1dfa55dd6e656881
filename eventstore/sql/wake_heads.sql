-- Promises: no head rests that is not where it was sealed as ended. Reads head and sealed whole: for a start.
SELECT runwire.wake_heads()
