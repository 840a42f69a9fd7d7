//! Compactions of one tree on a simulated file, against a model that knows what each table holds.

mod exact;
mod failure;
mod forged;
mod plans;
mod random;
mod tree;

use understory_format::Geometry;

/// Several blocks in a table and several pages in a block.
fn wide() -> Geometry {
    Geometry { block_size: 16384, page_size: 4096, table_blocks: 2, ..Geometry::small() }
}

/// Two blocks of one page in a table.
fn narrow() -> Geometry {
    Geometry { table_blocks: 2, ..Geometry::small() }
}
