"""A whole training run: load, judge the base, train, keep the best adapter, judge again."""
