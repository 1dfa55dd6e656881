"""Answers questions from a set of documents, one step after the other: it reasons, asks its tools, and keeps notes."""
