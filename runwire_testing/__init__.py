"""What an author's tests stand on: real servers of their own, a scripted model, and runs that die on demand."""
