"""The workers' figures: how soon a run stops, goes on after a crash, and how fast a model's words reach a reader."""
