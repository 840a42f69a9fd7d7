//! Inputs whose checksums are good and whose contents are not what index or manifest say.

use std::ops::Range;

use understory_format::{
    Beat, BlockAddress, BlockKind, Geometry, HEADER_SIZE, IndexView, Key, seal, usize_of, value,
};
use understory_manifest::Table;
use understory_table::TableError;
use understory_testkit::Pair;

use super::failure::{is_in, run};
use super::narrow;
use super::tree::{TestTree, level, values};

/// Where an index block says how many values its table has.
const INDEX_VALUE_COUNT: Range<usize> = 128..136;

fn range(geometry: &Geometry, address: BlockAddress) -> Range<usize> {
    let start = usize::try_from(geometry.block_offset(address)).unwrap();
    start..start + usize_of(geometry.block_size)
}

fn u64_at(bytes: &[u8], range: Range<usize>) -> u64 {
    u64::from_le_bytes(bytes[range].try_into().unwrap())
}

/// A copy of the tree, with nothing in memory, in which the first value block of a table of level 0, its index and
/// what the manifest says of it were changed and sealed anew.
fn forge(
    tree: &TestTree<Pair>,
    old: &Table<u64>,
    values: impl FnOnce(&mut [u8]),
    index: impl FnOnce(&mut [u8]),
) -> TestTree<Pair> {
    let geometry = *tree.grid.geometry();
    let good = tree.grid.read_twin(old.info.index, BlockKind::Index).unwrap();
    let view = IndexView::new(&good, u64::SIZE).unwrap();
    let first = view.entry(0).reference.address;
    let pages_start = usize_of(view.header().size.get()) - 16 * usize_of(view.page_count());
    let mut forged = old.info;
    let mut cold = tree.cold_with(3, |image| {
        let block = &mut image[range(&geometry, first)];
        values(block);
        let mut pages = Vec::new();
        let checksum = value::seal(block, |_, checksum| pages.push(checksum));
        let block = &mut image[range(&geometry, old.info.index.address)];
        block[HEADER_SIZE + 8..HEADER_SIZE + 24].copy_from_slice(&checksum.get().to_le_bytes());
        for (number, page) in pages.into_iter().enumerate() {
            block[pages_start + 16 * number..][..16].copy_from_slice(&page.get().to_le_bytes());
        }
        index(block);
        forged.index.checksum = seal(block);
        forged.value_count = u64_at(block, INDEX_VALUE_COUNT);
        let copy = block.to_vec();
        image[range(&geometry, old.info.index.twin)].copy_from_slice(&copy);
    });
    cold.replace(0, old, forged);
    cold
}

fn table(tree: &TestTree<Pair>, number: usize) -> Table<u64> {
    *tree.manifest.iter(level(0), Beat::MAX).nth(number).unwrap()
}

/// An index may be in memory by read-ahead, which looks at its checksum only. What it says in sum is found wrong at
/// the latest when the values end, or do not.
#[test]
fn an_index_says_more_or_less_than_there_is() {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    tree.add(0, &values((0..1_500).map(|key| 3 * key)));
    tree.add(1, &values((0..2_000).map(|key| 2 * key)));
    run(&forge(&tree, &table(&tree, 0), |_| (), |_| ()), 100).unwrap();
    for number in 0..4 {
        for off in [-1_i64, 1, 100] {
            for quota in [1_000_000, 100, 1] {
                let forged = forge(
                    &tree,
                    &table(&tree, number),
                    |_| (),
                    |index| {
                        let count = u64_at(index, INDEX_VALUE_COUNT).checked_add_signed(off).unwrap();
                        index[INDEX_VALUE_COUNT].copy_from_slice(&count.to_le_bytes());
                    },
                );
                let error = run(&forged, quota).unwrap_err();
                let field = error.corruption().unwrap_or_else(|| panic!("{error}")).field;
                assert!(field.ends_with("value_count"), "{error}");
            }
        }
    }
}

/// A key beyond what index and manifest say of its table: the outputs would overlap tables that are no inputs.
#[test]
fn a_block_holds_a_key_beyond_its_table() {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    tree.add(0, &values(1_000..1_204));
    tree.add(1, &values([1_100, 1_300]));
    tree.add(1, &values([100, 900]));
    tree.add(1, &values([1_900, 2_100]));
    let old = table(&tree, 0);
    assert_eq!((old.key_min, old.key_max, old.info.value_block_count), (1_000, 1_203, 1));
    let (first, last) = (HEADER_SIZE, HEADER_SIZE + 203 * 16);
    let check = |at: usize, key: u64, is_good: bool| {
        let change = |block: &mut [u8]| block[at..at + 8].copy_from_slice(&key.to_le_bytes());
        match run(&forge(&tree, &old, change, |_| ()), 100) {
            Ok(()) => assert!(is_good, "{key}"),
            Err(TableError::Corrupt(corruption)) => {
                assert!(!is_good, "{key}: {corruption}");
                assert_eq!(corruption.field, "key");
                assert!(
                    tree.blocks(&old.info).iter().any(|block| is_in(&corruption, *block)),
                    "{corruption}"
                );
            }
            Err(error) => panic!("{error}"),
        }
    };
    for (key, is_good) in [(1_203, true), (1_204, false), (1_301, false), (2_000, false)] {
        check(last, key, is_good);
    }
    for (key, is_good) in [(1_000, true), (999, false), (500, false), (0, false)] {
        check(first, key, is_good);
    }
}
