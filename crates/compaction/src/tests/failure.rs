//! A job that fails: its inputs are as they were, and the error says why.

use understory_format::{Beat, Corruption, Place};
use understory_grid::GridError;
use understory_io::{IoCause, Storage};
use understory_manifest::Table;
use understory_table::TableError;
use understory_testkit::Pair;

use super::narrow;
use super::tree::{TestTree, level, values};

/// Two levels that overlap, on a file of which nothing is in memory.
fn cold() -> TestTree<Pair> {
    let mut tree = TestTree::<Pair>::new(narrow(), 1);
    tree.add(0, &values((0..1_500).map(|key| 3 * key)));
    tree.add(1, &values((0..2_000).map(|key| 2 * key)));
    tree.cold(2)
}

/// Runs all plans into level 1 and reads what they would release; nothing is applied.
pub(super) fn run(tree: &TestTree<Pair>, quota: u64) -> Result<(), TableError> {
    for plan in tree.plans(1, true) {
        let mut job = tree.job(plan);
        tree.run(&mut *job, |_| quota)?;
        job.finish()?;
    }
    Ok(())
}

/// The inputs hold what they held.
fn check_inputs(tree: &TestTree<Pair>, what: &str) {
    tree.manifest.verify().unwrap();
    for (_, table) in tree.manifest.tables() {
        assert!(tree.blocks(&table.info).iter().all(|address| !tree.grid.is_released(*address)), "{what}");
        let found = tree.read(&table.info).unwrap();
        assert!(found == tree.contents[&table.info.index.address], "{what}");
    }
}

#[test]
fn an_operation_fails() {
    let tree = cold();
    let start = tree.sim.operations();
    run(&tree, 100).unwrap();
    let end = tree.sim.operations();
    assert!(end - start > 20, "{} operations", end - start);
    let (mut reads, mut writes) = (0, 0);
    for operation in start..end {
        for cause in [IoCause::Injected, IoCause::NoSpace] {
            let tree = cold();
            tree.sim.inject(operation, cause);
            let what = format!("operation {operation}: {cause:?}");
            let result = run(&tree, 100).and_then(|()| Ok(tree.grid.flush()?));
            let is_poisoned = tree.grid.poison().is_some();
            match result {
                // Read ahead in vain, and again when it was wanted; or from the other copy.
                Ok(()) => {}
                Err(TableError::Grid(
                    GridError::Io(_) | GridError::Unreadable { .. } | GridError::OutOfSpace { .. },
                )) if !is_poisoned => reads += 1,
                Err(TableError::Grid(GridError::Io(_) | GridError::Poisoned { .. })) => writes += 1,
                Err(error) => panic!("{what}: {error}"),
            }
            check_inputs(&tree, &what);
        }
    }
    assert!(reads > 10 && writes > 2, "{reads} of reads, {writes} of writes");
}

/// One damaged byte in each block of an input, header, values and slots: the job names the block.
#[test]
fn an_input_is_damaged() {
    let blocks = |tree: &TestTree<Pair>| {
        let tables: Vec<Table<u64>> = tree.manifest.tables().map(|(_, table)| *table).collect();
        let indexes: Vec<_> =
            tables.iter().map(|table| [table.info.index.address, table.info.index.twin]).collect();
        let all: Vec<_> = tables.iter().flat_map(|table| tree.blocks(&table.info)).collect();
        (all, indexes)
    };
    let (all, indexes) = blocks(&cold());
    let mut found = 0;
    for (address, offset) in all.into_iter().zip([40, 300, 2_000, 3_900].into_iter().cycle()) {
        if indexes.iter().flatten().any(|copy| *copy == address) {
            continue;
        }
        let tree = cold();
        tree.sim.corrupt(tree.grid.geometry().block_offset(address) + offset, 4);
        let Err(TableError::Corrupt(corruption)) = run(&tree, 64) else { panic!("{address} is damaged") };
        assert!(is_in(&corruption, address), "{corruption}");
        assert!(!tree.grid.is_released(address), "it stays where it is");
        found += 1;
    }
    assert!(found > 15, "{found} value blocks");
    for copies in indexes {
        let tree = cold();
        let flip = |copy| tree.sim.corrupt(tree.grid.geometry().block_offset(copy) + 300, 4);
        flip(copies[0]);
        run(&tree, 64).unwrap();
        assert_eq!(tree.grid.damaged(), [copies[0]], "the other copy is used");
        let tree = cold();
        copies.iter().for_each(|copy| tree.sim.corrupt(tree.grid.geometry().block_offset(*copy) + 300, 4));
        let Err(TableError::Corrupt(corruption)) = run(&tree, 64) else { panic!("{copies:?} are damaged") };
        assert!(copies.iter().any(|copy| is_in(&corruption, *copy)), "{corruption}");
    }
}

pub(super) fn is_in(corruption: &Corruption, address: understory_format::BlockAddress) -> bool {
    matches!(corruption.place, Place::Block(at) | Place::Page(at, _) if at == address)
}

/// A manifest that says more or less of a table than its index does, under good checksums.
#[test]
fn an_input_is_not_what_the_manifest_says() {
    let check = |field: &str, change: fn(&mut Table<u64>)| {
        let mut tree = cold();
        let first = *tree.manifest.iter(level(0), Beat::MAX).next().unwrap();
        let mut forged = first;
        change(&mut forged);
        tree.replace(0, &first, forged.info);
        let Err(TableError::Corrupt(corruption)) = run(&tree, 50) else { panic!("{field} is forged") };
        assert_eq!(corruption.field, field, "{corruption}");
        assert!(is_in(&corruption, first.info.index.address), "{corruption}");
    };
    check("value_count", |table| table.info.value_count += 1);
    check("value_count", |table| table.info.value_count -= 1);
    check("tombstone_count", |table| table.info.tombstone_count = 1);
    check("value_block_count", |table| table.info.value_block_count += 1);
    check("key_min", |table| table.info.key_max = understory_format::Key::encode(table.key_max - 1));
    check("tree_id", |table| table.info.tree = understory_format::TreeId::new(6).unwrap());
}

/// The file cannot grow: the reservation of a slice fails, and its inputs stay.
#[test]
fn there_is_no_space() {
    let tree = cold();
    let before = tree.grid.space().acquired;
    run(&tree, 100).unwrap();
    let written = tree.grid.space().acquired - before;
    let mut failed = 0;
    for spare in 0..written + 6 {
        let tree = cold();
        tree.grid.back(60).unwrap();
        tree.sim.set_size_limit(Some(tree.sim.size()));
        // All that the file has room for but `spare` blocks goes to others.
        let room = (60..1_000).take_while(|count| tree.grid.back(*count).is_ok()).last().unwrap();
        let others = tree.grid.reserve(room - spare).unwrap();
        match run(&tree, 100) {
            Ok(()) => assert!(spare >= written),
            Err(TableError::Grid(GridError::OutOfSpace { needed, .. })) => {
                assert!(needed > 0 && tree.grid.poison().is_none());
                failed += 1;
            }
            Err(error) => panic!("{error}"),
        }
        tree.grid.forfeit(others);
        check_inputs(&tree, "no space");
    }
    assert!((written..written + 4).contains(&failed), "{failed} of {written}: little is asked for in vain");
}
