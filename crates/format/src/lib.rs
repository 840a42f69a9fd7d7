//! On-disk formats of Understory: headers, layouts, checksums, records and keys.
