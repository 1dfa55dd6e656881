"""Reads a workflow's source for what a run that is resumed could not repeat; nothing of it is imported or run."""
