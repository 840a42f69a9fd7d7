//! A deterministic LSM-forest storage engine for fixed-size records.
