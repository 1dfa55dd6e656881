"""Reviews a change file by file, in parallel, and lets no remark through that points to nothing in the change."""
