"""Drafts a policy section by section: paragraphs held until they are whole, redacted, and judged together."""
