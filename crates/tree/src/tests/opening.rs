//! A tree built from the edits of a manifest log: what cannot be is damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use understory_format::{Beat, Corruption, Geometry, Level, TableInfo};
use understory_io::Machine;
use understory_table::{FilterBudget, Scratch, TableLayout};
use understory_testkit::{Item, Pair, TestRecord};

use super::{Rig, TREE, open};
use crate::{Tree, VALUES_PER_BAR_MAX, values_per_bar};

/// A tree without tables over the file with these bytes.
pub(super) fn on_image<R: TestRecord>(image: Vec<u8>, geometry: &Geometry) -> Rig<R> {
    let (machine, sim) = Machine::sim_from(image, 8);
    let (grid, pool) = open(machine, geometry, 16);
    let layout = TableLayout::new::<R>(geometry).unwrap();
    let tree = Tree::new(grid, TREE, layout, pool.clone(), Arc::default());
    let tree = Arc::new(tree.holding_filters(Arc::new(FilterBudget::new(8))));
    let (model, scratch) = (BTreeMap::new(), Scratch::default());
    Rig { sim, tree, model, pool, scratch, version: 0, beat: Beat::new(1) }
}

type Tables = Vec<(Level, TableInfo)>;

/// A tree with a few levels, and its tables.
fn tables() -> (Rig<Pair>, Tables) {
    let mut rig = Rig::<Pair>::new(Geometry { table_blocks: 1, share_size: 1 << 18, ..Geometry::small() });
    for (step, depth) in [(1, 3), (2, 2), (3, 0)] {
        (0..1_000).for_each(|key| rig.put(step * key));
        rig.end_bar();
        (0..=depth).for_each(|target| rig.push(target));
    }
    rig.tree.grid().flush().unwrap();
    let tables = rig.tree.manifest().tables().map(|(level, table)| (level, table.info)).collect();
    (rig, tables)
}

fn load(rig: &Rig<Pair>, tables: &[(Level, TableInfo)]) -> Result<Rig<Pair>, Corruption> {
    let mut loaded = on_image(rig.sim.image(), rig.tree.grid().geometry());
    tables.iter().try_for_each(|(level, table)| loaded.tree.load(*level, *table))?;
    loaded.tree.loaded()?;
    loaded.model = rig.model.clone();
    Ok(loaded)
}

#[test]
fn tables_come_in_any_order() {
    let (rig, mut tables) = tables();
    assert!(tables.len() > 10);
    for seed in 0..4 {
        fastrand::Rng::with_seed(seed).shuffle(&mut tables);
        let loaded = load(&rig, &tables).unwrap();
        assert!(loaded.tree.manifest().tables().eq(rig.tree.manifest().tables()));
        loaded.check_all();
        (0..3_000).step_by(7).for_each(|key| loaded.check_get(key));
    }
}

#[test]
fn tables_that_cannot_be() {
    let (rig, tables) = tables();
    let check = |field: &str, change: &dyn Fn(&mut Tables)| {
        let mut changed = tables.clone();
        change(&mut changed);
        let error = load(&rig, &changed).map(|_| ()).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    };
    check("table.value_block_count", &|tables| tables[0].1.value_block_count = 2);
    check("table.value_block_count", &|tables| tables[0].1.value_block_count = u32::MAX);
    check("table.value_count", &|tables| tables[0].1.value_count = 205);
    check("table.value_count", &|tables| tables[0].1.value_count = u64::MAX);
    check("edit.level", &|tables| tables[0].0 = Level::new(7).unwrap());
    check("table.key_max", &|tables| {
        let TableInfo { key_min, key_max, .. } = &mut tables[0].1;
        std::mem::swap(key_min, key_max);
    });
    let last = tables.len() - 1;
    let other_level = |level: Level| Level::new(level.get() - 1).unwrap();
    check("table.key_min", &|tables| tables[last].0 = other_level(tables[last].0));
    let twice = load(&rig, &[tables[0], tables[0]]).map(|_| ()).unwrap_err();
    assert!(twice.field.starts_with("table."), "{twice}");
}

#[test]
fn a_bar_brings_so_many_values() {
    let small = Geometry::small();
    assert_eq!(values_per_bar(&small, 16), 4 * 16_384 / 32);
    assert_eq!(values_per_bar(&small, 144), 4 * 16_384 / 160);
    let huge = Geometry { share_size: 1 << 30, beats_per_bar: 256, ..small };
    assert!(values_per_bar(&huge, 16) > VALUES_PER_BAR_MAX);
    assert_eq!(values_per_bar(&Geometry { beats_per_bar: 64, ..huge }, 16), VALUES_PER_BAR_MAX);
}

#[test]
fn debug_is_short() {
    let (rig, _) = tables();
    let text = format!("{:?}", rig.tree);
    assert!(text.contains("\"pairs\"") && text.len() < 1_000, "{text}");
    let empty = Rig::<Item>::new(Geometry::small());
    assert!(format!("{:?}", empty.tree).contains("items"));
}
