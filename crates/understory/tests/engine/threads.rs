//! Reads from several threads at once on a real file, through caches much smaller than the file.
use crate::common::{Account, User, schema};
use understory::{Batch, Database, Error, Geometry, Options};

const fn assert_shared<T: Send + Sync>() {}
const _: () = assert_shared::<Database>();

/// The least budget that the geometry works with.
fn options() -> Options {
    let options = Options::default().memory(1).geometry(Geometry::small()).io_threads(1);
    let path = std::env::temp_dir().join("understory-that-is-not-made");
    let error = Database::create(path, &schema(), &options).unwrap_err();
    let Error::MemoryTooSmall { needed, .. } = error else { panic!("{error}") };
    options.memory(needed)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the subject is threads")]
fn many_threads_read_through_a_small_cache() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::create(folder.path().join("file"), &schema(), &options()).unwrap();
    let mut user = User::new(11, 20_000);
    let mut batch = Batch::new();
    for _ in 0..700 {
        user.fill(&mut batch, 100);
        database.commit(&batch).unwrap();
    }
    let (database, accounts) = (&database, &user.model.accounts);
    let read = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..600 {
            let id = rng.u64(0..20_000);
            // All blocks may be in use by the others' scans: that is an answer, and no other is.
            match database.get::<Account>(id) {
                Ok(found) => assert_eq!(found.as_ref(), accounts.get(&id)),
                Err(error) => assert!(matches!(error, Error::Busy), "{error}"),
            }
            let expected = accounts.range(id..).map(|(_, account)| account);
            for (row, account) in database.scan::<Account>(id..).unwrap().zip(expected).take(200) {
                match row {
                    Ok(row) => assert_eq!(row, *account),
                    Err(error) => assert!(matches!(error, Error::Busy), "{error}"),
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for seed in 0..8 {
            scope.spawn(move || read(seed));
        }
    });
    user.model.check(database).unwrap();
}
