"""Writes a clinical note sentence by sentence, without identifiers; what the transcript does not say is left out."""
