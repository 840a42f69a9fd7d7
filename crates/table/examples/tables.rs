//! Times writing, scanning and searching tables: `cargo run --release -p understory-table --example tables`.
//!
//! A million records of 144 bytes with random 16-byte keys, default geometry, everything in memory on a simulated
//! file. Prints nanoseconds a value; one run, no statistics.

mod timing;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use understory_format::{Beat, Geometry, Record, TableInfo, TreeDescription, TreeId, Usage, record};
use understory_grid::{FormatState, Grid, GridOptions};
use understory_io::{Arena, Machine, SimOptions, SimStorage};
use understory_table::{
    Direction, KeyRange, LevelCursor, Lookup, ReadAhead, Source, TableLayout, TableWriter, search_cached,
};
use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use timing::time;

const COUNT: u32 = 1 << 20;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Row {
    id: U128,
    rest: [u8; 128],
}
record! { Row: "rows", key = { id: U128 } }

fn rows() -> Vec<Row> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut keys: Vec<u128> = (0..COUNT).map(|_| rng.u128(..)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().map(|key| Row { id: key.into(), rest: [7; 128] }).collect()
}

struct Tables {
    grid: Arc<Grid>,
    layout: TableLayout,
    tables: Vec<TableInfo>,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn make_grid() -> Outcome<Arc<Grid>> {
    let geometry = Geometry::default();
    let machine: Machine = Arc::new(SimStorage::new(SimOptions::seeded(1))).machine();
    let tree = TreeId::new(1).ok_or("1 is an id")?;
    let trees = [TreeDescription::of::<Row>(tree, Usage::General)];
    Grid::format(&machine, &FormatState { geometry, trees: &trees, size_limit: None })?;
    let options = GridOptions { block_count: 6000, page_count: 16, read_only: false };
    let arena = Arena::new(options.arena_size(&geometry).ok_or("too large")?)?;
    arena.touch();
    Ok(Arc::new(Grid::open(machine, &arena, options)?))
}

fn write(what: &str, rows: &[Row], by_slice: bool) -> Outcome<Tables> {
    let grid = make_grid()?;
    let layout = TableLayout::new::<Row>(grid.geometry())?;
    let tree = TreeId::new(1).ok_or("1 is an id")?;
    let mut writer = TableWriter::<Row>::new(Arc::clone(&grid), layout, tree, Beat::new(1), Beat::new(1));
    let mut reservation = grid.reserve(writer.blocks_bound(COUNT.into()))?;
    time(what, COUNT, || -> Outcome<()> {
        if by_slice {
            rows.chunks(256).try_for_each(|slice| writer.push_slice(slice, &mut reservation))?;
        } else {
            rows.iter().try_for_each(|row| writer.push(row, false, &mut reservation))?;
        }
        Ok(writer.finish(&mut reservation)?)
    })?;
    grid.forfeit(reservation);
    let tables = writer.take_tables();
    Ok(Tables { grid, layout, tables })
}

impl Tables {
    fn cursor(&self, range: KeyRange<u128>, direction: Direction) -> LevelCursor<Row> {
        let mut tables: Vec<TableInfo> =
            self.tables.iter().copied().filter(|info| overlaps(info, &range)).collect();
        if direction == Direction::Descending {
            tables.reverse();
        }
        LevelCursor::new(Arc::clone(&self.grid), self.layout, tables, range, direction, ReadAhead::SCAN)
    }

    fn scans(&self) -> Outcome<()> {
        let all = KeyRange::new(0, u128::MAX).ok_or("in order")?;
        for direction in [Direction::Ascending, Direction::Descending] {
            let mut cursor = self.cursor(all, direction);
            time(&format!("scan, load and advance, {direction:?}"), COUNT, || -> Outcome<()> {
                while cursor.load()?.is_some() {
                    black_box(cursor.entry().value.rest);
                    cursor.advance();
                }
                Ok(())
            })?;
            let mut cursor = self.cursor(all, direction);
            time(&format!("scan, by slices, {direction:?}"), COUNT, || -> Outcome<()> {
                while let Some(values) = cursor.values()? {
                    values.values.iter().for_each(|row| _ = black_box(row.rest));
                    let count = values.values.len();
                    cursor.consume(count);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn short_scans(&self, rows: &[Row]) -> Outcome<()> {
        let mut rng = fastrand::Rng::with_seed(2);
        for (count, what) in [(1, "seek and 1 value"), (100, "seek and 100 values")] {
            time(&format!("{what}, a scan"), 20_000, || -> Outcome<()> {
                for _ in 0..20_000 {
                    let start = rng.choice(rows).ok_or("rows")?.key();
                    let range = KeyRange::new(start, u128::MAX).ok_or("in order")?;
                    let mut cursor = self.cursor(range, Direction::Ascending);
                    for _ in 0..count {
                        if cursor.load()?.is_none() {
                            break;
                        }
                        black_box(cursor.entry().value.rest);
                        cursor.advance();
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn lookups(&self, rows: &[Row]) -> Outcome<()> {
        let mut rng = fastrand::Rng::with_seed(3);
        let maxima: Vec<u128> =
            self.tables.iter().map(|info| key(&info.key_max)).collect::<Result<_, _>>()?;
        for (miss, what) in [(0, "hit"), (1, "miss")] {
            let keys: Vec<u128> = (0..500_000).filter_map(|_| Some(rng.choice(rows)?.key() + miss)).collect();
            let found = time(&format!("search_cached, {what}"), 500_000, || -> Outcome<u32> {
                let mut found = 0;
                for &key in &keys {
                    let Some(info) = self.tables.get(maxima.partition_point(|&max| max < key)) else {
                        continue;
                    };
                    let lookup = search_cached::<Row>(&self.grid, &self.layout, info, key)?;
                    found +=
                        u32::from(matches!(lookup, Lookup::Found(entry) if entry.value.rest == [7; 128]));
                }
                Ok(found)
            })?;
            println!("{found} found");
        }
        Ok(())
    }
}

fn key(bytes: &understory_format::KeyBytes) -> Outcome<u128> {
    Ok(u128::from_le_bytes(bytes.key(16).try_into()?))
}

fn overlaps(info: &TableInfo, range: &KeyRange<u128>) -> bool {
    key(&info.key_max).is_ok_and(|max| max >= range.min())
}

fn main() -> Outcome<()> {
    let rows = rows();
    write("write, value by value", &rows, false)?;
    let tables = write("write, by slices of 256", &rows, true)?;
    tables.scans()?;
    tables.short_scans(&rows)?;
    tables.lookups(&rows)
}
