//! The durable log of table events of all trees, and its replay.
