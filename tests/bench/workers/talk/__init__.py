"""One long answer of a model, piece after piece: what a run of the benchmarks does."""
