use super::*;
use crate::testing::assert_expectation;
use zerocopy::IntoBytes;

#[test]
fn the_usual_ones_are_valid_and_survive_encoding() {
    for geometry in [
        Geometry::default(),
        Geometry::default().without_journal(),
        Geometry::small(),
        Geometry::small().with_journal(),
    ] {
        assert_eq!(geometry.validate(), Ok(()));
        assert_eq!(GeometryWire::encode(&geometry).decode(), Ok(geometry));
    }
}

#[test]
fn a_bar_is_an_eighth_of_memory() {
    fn check(memory: u64, bar: u64) {
        let geometry = Geometry::for_memory(memory);
        assert_eq!(geometry.validate(), Ok(()));
        assert_eq!(u64::from(geometry.beats_per_bar) * u64::from(geometry.share_size), bar, "{memory}");
    }
    const MIB: u64 = 1 << 20;
    check(0, 8 * MIB);
    check(64 * MIB, 8 * MIB);
    check(128 * MIB - 1, 8 * MIB);
    check(128 * MIB, 16 * MIB);
    check(1 << 30, 128 * MIB);
    check(u64::MAX, 512 * MIB);
    assert_eq!(Geometry::for_memory(512 * MIB), Geometry::default());
}

#[test]
fn what_is_out_of_range_is_named() {
    fn check(change: impl Fn(&mut Geometry), expected: &str) {
        let mut geometry = Geometry::default();
        change(&mut geometry);
        assert_eq!(geometry.validate().unwrap_err().to_string(), expected);
        let decoded = GeometryWire::encode(&geometry).decode().unwrap_err();
        assert_eq!(format!("geometry: {decoded}").replace("bytes: ", ""), expected);
    }
    check(|g| g.block_size = 2048, "geometry: block_size is 2048, expected at least 4096");
    check(|g| g.block_size = 2 << 20, "geometry: block_size is 2097152, expected at most 1048576");
    check(|g| g.block_size = 12 << 10, "geometry: block_size is 12288, expected a power of two");
    check(|g| g.page_size = 32 << 10, "geometry: page_size is 32768, expected at most 16384");
    check(|g| g.block_size = 8192, "geometry: page_size is 16384, expected at most 8192");
    check(|g| g.page_size = 2048, "geometry: page_size is 2048, expected at least 4096");
    check(|g| g.table_blocks = 0, "geometry: table_blocks is 0, expected at least 1");
    check(|g| g.levels = 0, "geometry: levels is 0, expected at least 1");
    check(|g| g.levels = 8, "geometry: levels is 8, expected at most 7");
    check(|g| g.growth = 3, "geometry: growth is 3, expected at least 4");
    check(|g| g.growth = 17, "geometry: growth is 17, expected at most 16");
    check(|g| g.beats_per_bar = 3, "geometry: beats_per_bar is 3, expected an even number");
    check(|g| g.beats_per_bar = 258, "geometry: beats_per_bar is 258, expected at most 256");
    check(|g| g.share_size = 1, "geometry: share_size is 1, expected at least 4096");
    check(|g| g.batch_size_max = 0, "geometry: batch_size_max is 0, expected at least 1");
    check(
        |g| g.batch_size_max = g.share_size + 1,
        "geometry: batch_size_max is 2097153, expected at most 2097152",
    );
    check(|g| g.level0 = Level0::Merged, "geometry: runs_max is 8, expected at most 1");
    check(|g| g.runs_max = 0, "geometry: runs_max is 0, expected at least 2");
    check(|g| g.runs_max = 1, "geometry: runs_max is 1, expected at least 2");
    check(|g| g.runs_max = 9, "geometry: runs_max is 9, expected at most 8");
    (2..=8).for_each(|runs_max| Geometry::small().with_runs(runs_max).validate().unwrap());
    Geometry { level0: Level0::Merged, runs_max: 1, ..Geometry::default() }.validate().unwrap();
    check(|g| g.filter_bits = 33, "geometry: filter_bits is 33, expected at most 32");
    check(|g| g.journal_size = 4096, "geometry: journal_size is 4096, expected a multiple of the block size");
    check(|g| g.journal_sector = 512, "geometry: journal_sector is 512, expected at least 4096");
    check(|g| g.interval_min = 0, "geometry: interval_min is 0, expected at least 4096");
    check(|g| g.interval_max = 1 << 20, "geometry: interval_max is 1048576, expected at least 16812032");
    check(
        |g| g.journal_size -= u64::from(g.block_size),
        "geometry: journal_size is 226951168, expected at least 226961408",
    );
}

#[test]
fn a_difference_is_named() {
    let (ours, mut theirs) = (Geometry::default(), Geometry::default());
    assert_eq!(ours.differs(&theirs), None);
    theirs.growth = 4;
    assert_eq!(ours.differs(&theirs).unwrap().to_string(), "growth is 8 here and 4 there");
    for index in 0..ours.fields().len() {
        let mut bytes = GeometryWire::encode(&ours);
        let field = GeometryWire::LAYOUT.fields.iter().find(|field| field.name == ours.fields()[index].0);
        let field = field.unwrap();
        bytes.as_mut_bytes()[field.offset] ^= 1;
        if let Ok(theirs) = bytes.decode() {
            assert_eq!(ours.differs(&theirs).unwrap().field, field.name);
        }
    }
}

#[test]
fn zones_follow_each_other() {
    fn check(geometry: Geometry, expected: [u64; 3]) {
        let second = BlockAddress::new(2).unwrap();
        let found = [geometry.journal_offset(), geometry.grid_offset(), geometry.block_offset(second)];
        assert_eq!(found, expected);
        assert_eq!(found.map(|offset| offset % u64::from(geometry.block_size)), [0; 3]);
    }
    let default = Geometry::default();
    check(default.without_journal(), [65_536, 65_536, 131_072]);
    check(default, [65_536, 65_536 + default.journal_size, 131_072 + default.journal_size]);
    check(Geometry::small(), [65_536, 65_536, 69_632]);
    check(Geometry { journal_size: 1 << 20, ..default }, [65_536, 1_114_112, 1_179_648]);
    check(Geometry { block_size: 1 << 20, ..default.without_journal() }, [1 << 20, 1 << 20, 2 << 20]);
    let last = Geometry::superblock_offset(3) + 4096;
    assert!(last <= SUPERBLOCK_ZONE_SIZE);
    assert_eq!(default.block_offset_checked(BlockAddress::new(u64::MAX).unwrap()), None);
}

#[test]
fn charges_are_whole_sectors() {
    let check = |effects: u64, expected: u64| assert_eq!(charge(effects), expected, "{effects}");
    check(0, 4096);
    check(3840, 4096);
    check(3841, 8192);
    check(7936, 8192);
    check(u64::MAX, u64::MAX);
}

#[test]
fn expectation_of_the_default() {
    let wire = GeometryWire::encode(&Geometry::default());
    assert_expectation("v1-geometry-default", &crate::dump(&GeometryWire::LAYOUT, wire.as_bytes()));
}
