"""The figures: each benchmark prints what the README quotes."""
