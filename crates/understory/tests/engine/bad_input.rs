//! What bad input gets: a typed error that says what is wrong and with which file, and a file left as it was.

#![expect(clippy::disallowed_methods, reason = "these tests damage files from outside")]
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Account, ByOwner, Event, options, schema};
use understory::{
    Batch, Database, Error, Geometry, Machine, Options, Record, Schema, SchemaDifference, SchemaError, record,
};
use understory_format::{Checksum, SUPERBLOCK_SIZE};
use understory_grid::GridError;
use understory_io::OpenError;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes from one superblock copy to the next.
const SUPERBLOCK_STRIDE: usize = 16_384;

struct Folder {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

/// A path to a file that is not there yet.
fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forest.understory");
    Folder { _folder: folder, path }
}

/// A file with some records, closed.
fn file() -> Folder {
    let folder = folder();
    let database = Database::create(&folder.path, &schema(), &options()).unwrap();
    let mut batch = Batch::new();
    for id in 0..100_u64 {
        batch.put(&Account { id: id.into(), body: [7; 40] });
    }
    database.commit(&batch).unwrap();
    database.close().unwrap();
    folder
}

/// Opening fails as `expected` says, names the file, and changes nothing on it.
fn check(path: &Path, schema: &Schema, options: &Options, expected: impl Fn(&Error) -> bool) {
    let before = fs::read(path).ok();
    for read_only in [false, true] {
        let opened = if read_only {
            Database::open_read_only(path, schema, options)
        } else {
            Database::open(path, schema, options)
        };
        let error = opened.expect_err("the file cannot be opened");
        assert!(expected(&error), "{error:?}");
        assert!(error.to_string().contains("forest.understory"), "{error}");
    }
    assert_eq!(fs::read(path).ok(), before, "the file is as it was");
}

fn check_file(path: &Path, expected: impl Fn(&Error) -> bool) {
    check(path, &schema(), &options(), expected);
}

fn is_open(error: &Error, expected: impl Fn(&OpenError) -> bool) -> bool {
    matches!(error, Error::Open(source) if expected(source))
}

fn is_unusable(error: &Error, expected: impl Fn(&GridError) -> bool) -> bool {
    matches!(error, Error::Unusable { source, .. } if expected(source))
}

#[test]
fn a_path_that_is_missing() {
    let folder = folder();
    check_file(&folder.path, |error| is_open(error, |source| matches!(source, OpenError::NotFound { .. })));
    let inside = folder.path.join("missing/forest.understory");
    let error = Database::create(inside, &schema(), &options()).unwrap_err();
    assert!(is_open(&error, |source| matches!(source, OpenError::NotFound { .. })), "{error:?}");
}

#[test]
fn a_directory() {
    let folder = folder();
    fs::create_dir(&folder.path).unwrap();
    check_file(&folder.path, |error| {
        is_open(error, |source| matches!(source, OpenError::IsDirectory { .. }))
    });
}

#[test]
fn an_empty_file_and_one_of_somebody_else() {
    let folder = folder();
    for content in [Vec::new(), b"#!/bin/sh\n".to_vec(), vec![0; 100_000], vec![b'x'; 300_000]] {
        fs::write(&folder.path, content).unwrap();
        check_file(&folder.path, |error| {
            is_unusable(error, |source| matches!(source, GridError::NotUnderstory))
        });
    }
}

#[test]
fn a_file_that_exists_is_not_created_again() {
    let folder = file();
    let before = fs::read(&folder.path).unwrap();
    let error = Database::create(&folder.path, &schema(), &options()).unwrap_err();
    assert!(is_open(&error, |source| matches!(source, OpenError::AlreadyExists { .. })), "{error:?}");
    assert_eq!(fs::read(&folder.path).unwrap(), before);
}

#[test]
fn a_truncated_file() {
    let folder = file();
    let whole = fs::read(&folder.path).unwrap();
    for size in [whole.len() / 2 / 4096 * 4096, 80_000, 70_000] {
        fs::write(&folder.path, &whole[..size]).unwrap();
        check_file(&folder.path, |error| {
            is_unusable(error, |source| matches!(source, GridError::Truncated { .. }))
        });
    }
}

#[test]
fn another_format_version() {
    let folder = file();
    let mut bytes = fs::read(&folder.path).unwrap();
    let layout = understory_format::SuperblockCopy::LAYOUT;
    let field = layout.fields.iter().find(|field| field.name == "version").unwrap();
    for copy in bytes.chunks_mut(SUPERBLOCK_STRIDE).take(4) {
        copy[field.offset..][..2].copy_from_slice(&99_u16.to_le_bytes());
        let checksum = Checksum::of(&copy[32..SUPERBLOCK_SIZE]);
        copy[..16].copy_from_slice(&checksum.get().to_le_bytes());
    }
    fs::write(&folder.path, bytes).unwrap();
    check_file(&folder.path, |error| {
        is_unusable(error, |source| *source == GridError::Version { found: 99 })
    });
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WideAccount {
    id: U64,
    body: [u8; 48],
}
record!(WideAccount: "accounts", key = { id: U64 });

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OtherKey {
    body: [u8; 40],
    id: U64,
}
record!(OtherKey: "accounts", key = { id: U64 });

#[test]
fn a_schema_that_differs() {
    let folder = file();
    let check = |schema: Schema, expected: SchemaDifference| {
        check(
            &folder.path,
            &schema,
            &options(),
            |error| matches!(error, Error::SchemaDiffers { difference, .. } if *difference == expected),
        );
    };
    check(Schema::new().tree::<Account>(), SchemaDifference::Count { file: 3, declared: 1 });
    check(
        Schema::new().tree::<Account>().tree::<Event>().tree::<ByOwner>(),
        SchemaDifference::Name { position: 1, file: "accounts.owner".to_string(), declared: "events" },
    );
    check(
        Schema::new().tree::<WideAccount>().tree::<ByOwner>().tree::<Event>(),
        SchemaDifference::ValueSize { name: "accounts", file: 48, declared: 56 },
    );
    check(
        Schema::new().tree::<OtherKey>().tree::<ByOwner>().tree::<Event>(),
        SchemaDifference::Key { name: "accounts" },
    );
}

#[test]
fn a_geometry_that_differs() {
    let folder = file();
    let geometry = Geometry { growth: 8, ..Geometry::small().with_journal() };
    check(&folder.path, &schema(), &options().geometry(geometry), |error| {
        matches!(error, Error::GeometryDiffers { field: "growth", file: 4, asked: 8, .. })
    });
}

#[test]
fn a_file_that_is_locked_can_be_read() {
    let folder = file();
    let _writer = Database::open(&folder.path, &schema(), &options()).unwrap();
    let error = Database::open(&folder.path, &schema(), &options()).unwrap_err();
    assert!(is_open(&error, |source| matches!(source, OpenError::Locked { .. })), "{error:?}");
    let reader = Database::open_read_only(&folder.path, &schema(), &options()).unwrap();
    assert_eq!(reader.scan::<Account>(..).unwrap().count(), 100);
    assert!(matches!(reader.commit(&Batch::new()), Err(Error::ReadOnly)));
    assert!(matches!(reader.checkpoint(), Err(Error::ReadOnly)));
}

#[test]
fn a_budget_that_is_too_small_says_the_least_possible() {
    let folder = file();
    let error = Database::open(&folder.path, &schema(), &options().memory(1 << 16)).unwrap_err();
    let Error::MemoryTooSmall { needed, given: 65_536 } = error else { panic!("{error:?}") };
    let opened = Database::open(&folder.path, &schema(), &options().memory(needed));
    assert_eq!(opened.unwrap().scan::<Account>(..).unwrap().count(), 100);
    let error = Database::open(&folder.path, &schema(), &options().memory(needed - 1)).unwrap_err();
    assert!(matches!(error, Error::MemoryTooSmall { .. }), "{error:?}");
}

#[test]
fn options_that_cannot_work_say_so() {
    let folder = file();
    for create in [false, true] {
        let try_with = |options: Options| {
            let path = if create { folder.path.with_extension("other") } else { folder.path.clone() };
            let opened = match create {
                true => Database::create(&path, &schema(), &options),
                false => Database::open(&path, &schema(), &options),
            };
            let error = opened.unwrap_err();
            assert!(!create || !path.exists(), "what cannot be used is not made");
            error
        };
        let error = try_with(options().io_threads(0));
        assert!(
            matches!(error, Error::OptionTooSmall { option: "io_threads", needed: 1, given: 0 }),
            "{error:?}"
        );
        assert_eq!(error.to_string(), "option io_threads is 0, and must be at least 1");
        // More than an address space, and what no machine of today gives.
        for memory in [u64::MAX, 1 << 62, (1 << 47) + 1, 1 << 47, 1 << 46] {
            let error = try_with(options().memory(memory));
            assert!(matches!(error, Error::MemoryTooLarge { given } if given == memory), "{error:?}");
        }
        let error = try_with(options().size_limit(70_000));
        assert!(
            matches!(error, Error::OptionTooSmall { option: "size_limit", given: 70_000, .. }),
            "{error:?}"
        );
    }
}

#[test]
fn a_batch_over_the_limit_changes_nothing() {
    let folder = folder();
    let database = Database::create(&folder.path, &schema(), &options()).unwrap();
    let limit = u64::from(database.geometry().batch_size_max);
    let mut batch = Batch::new();
    let mut id = 0_u64;
    while batch.size() <= limit {
        batch.put(&Account { id: id.into(), body: [1; 40] });
        id += 1;
    }
    let before = database.stats().op;
    let error = database.commit(&batch).unwrap_err();
    assert!(
        matches!(error, Error::BatchTooLarge { size, limit: found } if size == batch.size() && found == limit)
    );
    assert_eq!(database.stats().op, before);
    assert_eq!(database.scan::<Account>(..).unwrap().count(), 0);
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Stranger {
    id: U64,
}
record!(Stranger: "strangers", key = { id: U64 });

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Huge {
    id: U64,
    body: [u8; 4000],
}
record!(Huge: "huge", key = { id: U64 });

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Large {
    id: U64,
    body: [u8; 3000],
}
record!(Large: "large", key = { id: U64 });

#[test]
fn trees_that_cannot_be() {
    let folder = folder();
    let check = |schema: Schema, expected: SchemaError| {
        let error = Database::create(&folder.path, &schema, &options()).unwrap_err();
        assert!(matches!(error, Error::Schema(found) if found == expected), "{error:?}");
        assert!(!folder.path.exists(), "nothing is created");
    };
    check(Schema::new(), SchemaError::Empty);
    check(
        Schema::new().tree::<Account>().tree::<OtherKey>(),
        SchemaError::DuplicateName { name: "accounts" },
    );
    check(Schema::new().tree::<Huge>(), SchemaError::RecordTooLarge { name: "huge" });
    let many = (0..40).fold(Schema::new(), |schema, _| schema.tree::<Account>());
    check(many, SchemaError::TooManyTrees { count: 40, limit: 30 });
}

/// Creates a file of records of `$size` bytes, and says whether it can be.
macro_rules! fits {
    ($size:literal, $geometry:expr) => {{
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        struct Sized {
            id: U64,
            body: [u8; $size - 8],
        }
        record!(Sized: "sized", key = { id: U64 });
        let (machine, _storage) = Machine::sim(1);
        let schema = Schema::new().tree::<Sized>();
        match Database::format(&machine, Path::new("simulated"), &schema, $geometry, &Options::default()) {
            Ok(()) => true,
            Err(Error::Schema(SchemaError::RecordTooLarge { name: "sized" })) => false,
            Err(other) => panic!("{other}"),
        }
    }};
}

/// The limits that the README names.
#[test]
fn records_of_the_largest_size() {
    let large = Geometry::default();
    assert!(fits!(16_000, &large));
    let small_pages = Geometry { page_size: 4096, ..large };
    assert!(fits!(3_824, &small_pages));
    assert!(!fits!(3_825, &small_pages));
    assert!(fits!(2_032, &Geometry::small()));
    assert!(!fits!(2_033, &Geometry::small()));
}

#[test]
fn a_tree_of_few_large_records_per_page() {
    let folder = folder();
    let schema = Schema::new().tree::<Large>();
    let geometry = Geometry { block_size: 16 << 10, ..Geometry::small() };
    let options = options().geometry(geometry).memory(32 << 20);
    let database = Database::create(&folder.path, &schema, &options).unwrap();
    let mut batch = Batch::new();
    for id in 0..200_u64 {
        batch.clear();
        batch.put(&Large { id: id.into(), body: [5; 3000] });
        database.commit(&batch).unwrap();
    }
    database.checkpoint().unwrap();
    let records = database.scan::<Large>(..).unwrap().map(Result::unwrap);
    assert!(records.map(|large| (large.id.get(), large.body)).eq((0..200).map(|id| (id, [5; 3000]))));
}

#[test]
fn a_tree_that_is_not_declared() {
    let folder = file();
    let database = Database::open(&folder.path, &schema(), &options()).unwrap();
    assert!(matches!(database.get::<Stranger>(1), Err(Error::UnknownTree { name: "strangers" })));
    let mut batch = Batch::new();
    batch.put(&Account { id: 1_000.into(), body: [0; 40] });
    batch.put(&Stranger { id: 1.into() });
    assert!(matches!(database.commit(&batch), Err(Error::UnknownTree { name: Stranger::NAME })));
    assert_eq!(database.get::<Account>(1_000).unwrap(), None, "nothing of the batch was applied");
}

#[test]
fn a_full_file_says_so_and_can_still_be_read() {
    let folder = folder();
    let options = options().size_limit(1 << 20);
    let database = Database::create(&folder.path, &schema(), &options).unwrap();
    let mut batch = Batch::new();
    let mut committed = 0_u64;
    let error = loop {
        batch.clear();
        for id in committed..committed + 100 {
            batch.put(&Account { id: id.into(), body: [9; 40] });
        }
        match database.commit(&batch) {
            Ok(_) => committed += 100,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::OutOfSpace { .. }), "{error:?}");
    assert!(committed > 1_000);
    let again = database.commit(&batch).unwrap_err();
    assert!(matches!(again, Error::OutOfSpace { .. }), "{again}");
    assert_eq!(
        database.scan::<Account>(..).unwrap().map(Result::unwrap).count(),
        usize::try_from(committed).unwrap()
    );
    drop(database);
    Database::open(&folder.path, &schema(), &options).unwrap();
    assert!(fs::metadata(&folder.path).unwrap().len() <= 1 << 20);
}
