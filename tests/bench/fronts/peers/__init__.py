"""What other people's servers of event streams cost: each in a process of its own."""
