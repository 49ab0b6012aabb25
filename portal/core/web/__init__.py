"""What every page shares. Not for: anything that knows a model of a room above."""
