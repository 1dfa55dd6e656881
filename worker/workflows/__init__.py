"""The task types: one folder each, with its code, its samples and what the scripted model says to it."""
