//! One compaction as a bounded, resumable job.
