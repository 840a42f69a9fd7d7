//! Records for the tests of this crate.

use understory_format::{
    Beat, BlockAddress, Checksum, EditKind, KeyBytes, Level, ManifestEdit, TableInfo, TreeId, TwinRef,
};

/// A record of the table whose index block is at `address` and whose twin is right behind.
pub(crate) fn edit(kind: EditKind, level: u8, address: u64) -> ManifestEdit {
    let index = TwinRef {
        address: BlockAddress::new(address).unwrap(),
        twin: BlockAddress::new(address + 1).unwrap(),
        checksum: Checksum::of(&address.to_le_bytes()),
    };
    ManifestEdit { kind, level: Level::new(level).unwrap(), table: table(index) }
}

/// A table with this index block; the numbers in it mean nothing here.
pub(crate) fn table(index: TwinRef) -> TableInfo {
    TableInfo {
        tree: TreeId::new(1).unwrap(),
        index,
        key_min: KeyBytes::ZERO,
        key_max: KeyBytes::padded(&index.address.get().to_le_bytes()),
        value_count: 9,
        tombstone_count: 3,
        value_block_count: 2,
        beat_min: Beat::new(1),
        beat_max: Beat::MAX,
        age: Beat::new(1),
    }
}
