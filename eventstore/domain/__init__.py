"""The words of the log and everything that can be said of them without a clock, a socket or a database."""
