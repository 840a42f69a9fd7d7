//! Paths, locks, and direct I/O taken or refused.

use std::path::PathBuf;
use std::sync::Once;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use super::*;

#[test]
fn a_second_writer_is_locked_out() {
    let folder = folder();
    let path = folder.path().join("file");
    let first = OsStorage::create(&path, Options::default()).expect("created");
    let second = OsStorage::open(&path, Options::default()).expect_err("locked");
    assert_eq!(second, OpenError::Locked { path: path.clone() });
    assert_eq!(second.to_string(), format!("{}: locked by another process", path.display()));
    let create = OsStorage::create(&path, Options::default()).expect_err("there");
    assert_eq!(create, OpenError::AlreadyExists { path: path.clone() });
    let reader = OsStorage::open(&path, read_only()).expect("a reader takes no lock");
    drop(first);
    let writer = OsStorage::open(&path, Options::default()).expect("unlocked; readers hold no lock");
    drop((reader, writer));
}

#[test]
fn a_reader_sees_what_a_writer_does() {
    let folder = folder();
    let path = folder.path().join("file");
    let writer = OsStorage::create(&path, Options::default()).expect("created");
    let reader = OsStorage::open(&path, read_only()).expect("opened");
    assert_eq!(reader.size(), 0);
    writer.grow(at(4)).expect("grown");
    let buffers = pool(1, 2);
    write(&writer, 2, filled(&buffers, 6)).wait().result.expect("written");
    assert_eq!(reader.size(), at(4));
    let buffer = reader.read(at(2), buffers.take().expect("free")).wait().into_buffer().expect("read");
    assert!(buffer.iter().all(|byte| *byte == 6));
    drop(reader);
    assert_eq!(contents(&path).len(), 4 * SECTOR);
}

#[test]
#[should_panic(expected = "a read-only storage is not written")]
fn a_reader_does_not_write() {
    let folder = folder();
    let path = folder.path().join("file");
    put(&path, &[0; SECTOR]);
    let reader = OsStorage::open(&path, read_only()).expect("opened");
    let _ticket = write(&reader, 0, filled(&pool(1, 1), 6));
}

/// What a path that cannot be opened gives, for writers, readers and creators.
fn check_path(path: &Path, open: fn(PathBuf) -> OpenError, create: fn(PathBuf) -> OpenError) {
    let expected = open(path.into());
    assert_eq!(OsStorage::open(path, Options::default()).expect_err("refused"), expected);
    assert_eq!(OsStorage::open(path, read_only()).expect_err("refused"), expected);
    let expected = create(path.into());
    assert_eq!(OsStorage::create(path, Options::default()).expect_err("refused"), expected);
    assert!(expected.to_string().starts_with(&path.display().to_string()));
}

#[test]
fn paths_that_cannot_be_opened() {
    let folder = folder();
    let file = folder.path().join("file");
    put(&file, b"not ours");
    let not_found = |path| OpenError::NotFound { path };
    let exists = |path| OpenError::AlreadyExists { path };
    check_path(&folder.path().join("no/such"), not_found, not_found);
    check_path(Path::new(""), not_found, not_found);
    check_path(folder.path(), |path| OpenError::IsDirectory { path }, exists);
    check_path(Path::new("/dev/null"), |path| OpenError::NotRegular { path }, exists);
    let not_a_folder = |path| {
        let cause = IoCause::Os(Errno::NOTDIR.raw_os_error());
        OpenError::Io { path, source: IoError::new(Operation::Open, 0, cause) }
    };
    check_path(&file.join("below"), not_a_folder, not_a_folder);
    let missing = OsStorage::open(folder.path().join("none"), Options::default()).expect_err("missing");
    assert_eq!(missing, OpenError::NotFound { path: folder.path().join("none") });
    assert_eq!(contents(&file), b"not ours");
}

/// Opening a pipe would block for ever.
#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn a_pipe_does_not_block() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = folder();
    let path = folder.path().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    for options in [Options::default(), read_only()] {
        let error = OsStorage::open(&path, options).expect_err("a pipe");
        assert_eq!(error, OpenError::NotRegular { path: path.clone() });
    }
}

#[test]
fn error_numbers_are_typed() {
    let path = Path::new("some/file");
    let io = |operation, errno: Errno| OpenError::Io {
        path: path.into(),
        source: IoError::new(operation, 0, IoCause::from_errno(errno)),
    };
    for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS] {
        let expected = OpenError::Permission { path: path.into() };
        assert_eq!(open::classify(path, Operation::Open, errno), expected);
    }
    let locked = OpenError::Locked { path: path.into() };
    assert_eq!(open::classify(path, Operation::Lock, Errno::WOULDBLOCK), locked);
    assert_eq!(
        open::classify(path, Operation::Open, Errno::WOULDBLOCK),
        io(Operation::Open, Errno::WOULDBLOCK),
    );
    let error = open::classify(path, Operation::Sync, Errno::IO);
    assert_eq!(error, io(Operation::Sync, Errno::IO));
    assert!(error.to_string().starts_with("some/file: sync at byte 0: "), "{error}");
}

/// The superuser may write anything but what the kernel itself holds read-only.
#[test]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the test looks at the file from outside"
)]
fn a_file_that_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let mut path = folder.path().join("file");
    put(&path, &[0; SECTOR]);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).expect("our file");
    if std::fs::OpenOptions::new().write(true).open(&path).is_ok() {
        path = PathBuf::from("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
        if !path.exists() {
            return;
        }
    }
    let error = OsStorage::open(&path, Options::default()).expect_err("not writable");
    assert_eq!(error, OpenError::Permission { path });
}

/// Warnings of all tests of this process.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.lock().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

pub(super) fn capture_warnings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Capture).expect("no other logger in this test binary");
        log::set_max_level(log::LevelFilter::Warn);
    });
}

/// Warnings that name this path.
pub(super) fn warnings(path: &Path) -> Vec<String> {
    let path = path.display().to_string();
    WARNINGS.lock().iter().filter(|warning| warning.starts_with(&path)).cloned().collect()
}

#[test]
fn refused_direct_io_falls_back_and_says_so() {
    capture_warnings();
    let folder = folder();
    for errno in [Errno::INVAL, Errno::IO, Errno::OPNOTSUPP] {
        let path = folder.path().join(errno.raw_os_error().to_string());
        let options = Options { direct: DirectIo::ProbeFailing(errno.raw_os_error()), ..Options::default() };
        run_model(&path, options.clone(), 1);
        assert_eq!(warnings(&path).len(), 1, "said once, at creation");
        let storage = OsStorage::open(&path, options).expect("opened");
        assert!(!storage.is_direct());
        assert_eq!(storage.path(), path);
        let said = warnings(&path);
        assert_eq!(said.len(), 2, "and at opening");
        assert!(said[1].contains("direct I/O is refused") && said[1].contains("page cache"), "{}", said[1]);
    }
}

#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn direct_io_is_taken_where_it_works() {
    capture_warnings();
    let folder = folder();
    let path = folder.path().join("file");
    let storage = OsStorage::create(&path, Options::default()).expect("created");
    let direct = storage.is_direct();
    assert_eq!(direct, warnings(&path).is_empty());
    drop(storage);
    for options in [Options::default(), read_only()] {
        let opened = open::open(&path, &options).expect("opened");
        let flags = rustix::fs::fcntl_getfl(&opened.file.fd).expect("flags");
        assert_eq!((flags.contains(OFlags::DIRECT), opened.direct), (direct, direct));
        assert!(!flags.contains(OFlags::NONBLOCK), "only opening must not block");
    }
    let path = folder.path().join("other");
    let off = Options { direct: DirectIo::Off, ..Options::default() };
    assert!(!OsStorage::create(&path, off.clone()).expect("created").is_direct());
    let opened = open::open(&path, &off).expect("opened");
    let flags = rustix::fs::fcntl_getfl(&opened.file.fd).expect("flags");
    assert!(!flags.contains(OFlags::NONBLOCK) && !flags.contains(OFlags::DIRECT));
    assert!(warnings(&path).is_empty());
}

#[test]
fn a_file_that_could_not_be_filled_is_removed() {
    let folder = folder();
    let path = folder.path().join("file");
    OsStorage::create(&path, Options::default()).expect("created").remove().expect("removed");
    assert!(!path.exists());
    drop(OsStorage::create(&path, Options::default()).expect("created anew"));
}

/// Somebody else cuts or removes the file under us.
#[test]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the test changes the file from outside"
)]
fn a_file_that_others_cut_or_remove() {
    let folder = folder();
    let path = folder.path().join("file");
    let storage = OsStorage::create(&path, Options::default()).expect("created");
    storage.grow(at(9)).expect("grown");
    let reader = OsStorage::open(&path, read_only()).expect("opened");
    let check = || (storage.check(), reader.check());
    let failed = |offset, cause| Err(IoError::new(Operation::Check, offset, cause));
    let unlinked = failed(0, IoCause::Unlinked);
    assert_eq!(check(), (Ok(()), Ok(())));
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opened");
    file.set_len(at(12)).expect("longer");
    assert_eq!(check(), (Ok(()), Ok(())));
    file.set_len(at(8) + 5).expect("cut");
    assert_eq!(check(), (failed(at(8) + 5, IoCause::Truncated), Ok(())));
    storage.truncate(at(8)).expect("cut by ourselves");
    assert_eq!(check(), (Ok(()), Ok(())));
    let other = folder.path().join("other");
    std::fs::rename(&path, &other).expect("renamed");
    assert_eq!(check(), (Ok(()), Ok(())), "a file may change its name");
    std::fs::remove_file(&other).expect("removed");
    assert_eq!(check(), (unlinked, unlinked));
    file.set_len(0).expect("cut");
    assert_eq!(check(), (failed(0, IoCause::Truncated), unlinked));
}

/// A check beside changes of size sees none of them half done.
#[test]
#[expect(clippy::disallowed_methods, reason = "the test races real threads")]
fn a_check_beside_changes_of_size() {
    let folder = folder();
    let storage = OsStorage::create(folder.path().join("file"), Options::default()).expect("created");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..300 {
                storage.grow(at(4)).expect("grown");
                storage.truncate(at(1)).expect("cut");
            }
            over.store(true, Ordering::Release);
        });
        while !over.load(Ordering::Acquire) {
            storage.check().expect("as we made it");
        }
    });
}
