//! Tables of u32 keys for the tests of this crate.

use understory_format::{
    Beat, BlockAddress, Checksum, EditKind, Key, Level, ManifestEdit, TableInfo, TreeId, TwinRef,
};

use crate::{Manifest, Table};

pub(crate) fn level(level: u8) -> Level {
    Level::new(level).unwrap()
}

/// The table's index block is at `address`, its twin right behind.
pub(crate) fn info(address: u64, key_min: u32, key_max: u32, value_count: u64) -> TableInfo {
    TableInfo {
        tree: TreeId::new(1).unwrap(),
        index: TwinRef {
            address: BlockAddress::new(address).unwrap(),
            twin: BlockAddress::new(address + 1).unwrap(),
            checksum: Checksum::of(&address.to_le_bytes()),
        },
        key_min: key_min.encode(),
        key_max: key_max.encode(),
        value_count,
        tombstone_count: 0,
        value_block_count: 1,
        beat_min: Beat::new(1),
        beat_max: Beat::MAX,
        age: Beat::new(1),
    }
}

pub(crate) fn table(address: u64, key_min: u32, key_max: u32, value_count: u64) -> Table<u32> {
    Table::new(info(address, key_min, key_max, value_count)).unwrap()
}

/// A table seen from `beat_min` to `beat_max`.
pub(crate) fn past(address: u64, keys: (u32, u32), beats: (u64, u64)) -> Table<u32> {
    let beat = |beat| if beat == u64::MAX { Beat::MAX } else { Beat::new(beat) };
    let info = info(address, keys.0, keys.1, 1);
    Table::new(TableInfo { beat_min: beat(beats.0), beat_max: beat(beats.1), ..info }).unwrap()
}

pub(crate) fn edit(kind: EditKind, number: u8, info: TableInfo) -> ManifestEdit {
    ManifestEdit { kind, level: level(number), table: info }
}

/// These tables, level by level.
pub(crate) fn manifest(levels: &[Vec<Table<u32>>]) -> Manifest<u32> {
    let mut manifest = Manifest::new(u8::try_from(levels.len()).unwrap(), 1);
    for (number, tables) in levels.iter().enumerate() {
        for table in tables {
            manifest.insert(level(u8::try_from(number).unwrap()), *table);
        }
    }
    manifest.verify().unwrap();
    manifest
}
