//! In-memory levels of one tree: which tables exist and which of them compaction takes.
