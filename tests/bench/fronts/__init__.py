"""The fronts' figures: what readers cost, how soon they are told, and that none misses or doubles an event."""
