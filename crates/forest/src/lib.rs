//! A set of trees that share one grid, one manifest log, one schedule and one checkpoint.
