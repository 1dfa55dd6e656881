"""Emits a chosen mix of events at a chosen pace without a model: for load tests, fire drills and demos."""
