//! A file that somebody cuts under a running handle, and gives back or not.
//!
//! The handle may answer rightly, from memory or from what is left, or with a typed error; after a reopen likewise.
//! It does not die, and never gives a wrong answer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use understory::{Database, Error};

use crate::load::{self, least, schema, small};

/// What a call came to, shortly.
fn kind<T>(result: &Result<T, Error>) -> String {
    match result {
        Ok(_) => "right".to_owned(),
        Err(error) => {
            let text = format!("{error:?}");
            text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
        }
    }
}

/// A thread that does not wait for syncs, which are not the subject.
const THREAD: u16 = 4;

/// Where a file is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Behind so many bytes.
    At(u64),
    /// Behind so many thousandths.
    Part(u64),
}

/// Cuts the file under a handle that has committed some batches.
fn check(path: &Path, cut: Cut, counts: &mut BTreeMap<String, u32>) {
    let mut count = |what: &str, kind: String| *counts.entry(format!("{what}: {kind}")).or_default() += 1;
    let database = Database::create(path, &schema(), &least()).unwrap();
    for number in 1..=400 {
        load::commit(&database, THREAD, number).unwrap();
    }
    let before = fs::metadata(path).unwrap().len();
    let size = match cut {
        Cut::At(size) => size,
        Cut::Part(part) => before * part / 1_000,
    };
    assert!(size < before, "{size} of {before} bytes");
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();

    let mut newest = 400;
    let read = load::check(&database);
    assert!(read.as_ref().map_or(true, |heads| heads[&THREAD] == newest));
    count("read", kind(&read));
    for number in 401..=600 {
        let committed = load::commit(&database, THREAD, number);
        if committed.is_err() {
            count("commit", kind(&committed));
            break;
        }
        newest = number;
    }
    if newest == 600 {
        count("commit", "right".to_owned());
    }
    let read = load::check(&database);
    let unknown = newest + 1;
    assert!(read.as_ref().map_or(true, |heads| [newest, unknown].contains(&heads[&THREAD])));
    count("read after commits", kind(&read));
    count("checkpoint", kind(&database.checkpoint()));
    drop(database);

    let opened = Database::open(path, &schema(), &least());
    count("open", kind(&opened));
    if let Ok(database) = opened {
        let read = load::check(&database);
        assert!(
            read.as_ref().map_or(true, |heads| [newest, unknown].contains(&heads[&THREAD])),
            "{size}: {read:?}"
        );
        count("read after open", kind(&read));
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn under_a_running_handle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    let mut counts = BTreeMap::new();
    let grid = small().geometry.unwrap().grid_offset();
    let borders = [0, 4096, 40_000, 64 << 10, (64 << 10) + 4096, grid - 4096, grid, grid + 4096, grid + 4100];
    let parts = [100, 200, 300, 400, 500, 600, 700, 800, 900, 960, 999];
    for cut in borders.map(Cut::At).into_iter().chain(parts.map(Cut::Part)) {
        check(&path, cut, &mut counts);
    }
    println!("{counts:#?}");
}
