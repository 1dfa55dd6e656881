"""Answers a question about companies from retrieved sources; each figure in the text stands in a source it names."""
