//! A look at everything in a database that nobody writes to: all trees, in both directions, and some places one by one,
//! with what stands beside them.
//!
//! # Not here
//! What is found in the midst of work: `client`.

use fastrand::Rng;

use crate::book::Window;
use crate::handle::Handle;
use crate::sighting::Sets;
use crate::trace::Violation;
use crate::tree::{Place, Row, Span};
use crate::verdict;

/// Places of each tree that are read one by one.
const GETS: usize = 8;

/// How many commits of each client everything stems from, within `windows`. Places that cannot be read, where that is
/// explained, narrow nothing.
pub(crate) fn inspect(handle: &Handle<'_>, windows: &[Window], rng: &mut Rng) -> Result<Sets, Violation> {
    let mut sets: Sets = windows.iter().map(|window| (window.low..=window.high).collect()).collect();
    for (tree, plot) in handle.scenario.plots.iter().enumerate() {
        for is_descending in [false, true] {
            let span = Span::all(plot.tree.as_ref(), is_descending);
            let (rows, _, is_whole) = handle.rows(tree, &span, usize::MAX)?;
            if !is_whole && rows.is_empty() {
                continue;
            }
            let span = if is_whole { span } else { span.passed(rows.last().copied()) };
            narrow(&mut sets, handle, tree, &span, &rows, windows)?;
        }
        let places: Vec<Place> = (0..GETS).map(|_| rng.u32(0..plot.tree.place_count())).collect();
        // The first lookups bring filters into memory, which decide those that follow.
        for place in places.repeat(2) {
            let span = Span { min: place, max: place, ..Span::all(plot.tree.as_ref(), false) };
            match plot.tree.get(handle.database, place) {
                Ok(row) => {
                    let rows: Vec<Row> = row.into_iter().collect();
                    narrow(&mut sets, handle, tree, &span, &rows, windows)?;
                }
                Err(error) => handle.tally.count(verdict::of_read(&error, &handle.tap.harm())?),
            }
            if let Err(error) = plot.tree.get_beside(handle.database, place) {
                handle.tally.count(verdict::of_read(&error, &handle.tap.harm())?);
            }
        }
    }
    Ok(sets)
}

fn narrow(
    sets: &mut Sets,
    handle: &Handle<'_>,
    tree: usize,
    span: &Span,
    rows: &[Row],
    windows: &[Window],
) -> Result<(), Violation> {
    let plot = handle.scenario.plots.get(tree).expect("a tree of the schema");
    let found = handle.book.lock().explain(plot, tree, span, rows, windows)?;
    for (client, (set, found)) in sets.iter_mut().zip(found).enumerate() {
        set.retain(|index| found.contains(index));
        if set.is_empty() {
            let name = plot.tree.name();
            return Err(Violation::new(format!(
                "{name} and the trees before it show different numbers of commits of client {client}: a torn batch"
            )));
        }
    }
    Ok(())
}
