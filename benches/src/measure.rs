//! Clocks, counters of the kernel, and folders.

use crate::Failure;
use std::path::Path;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "measuring time is what this program is for")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(T, Duration), Failure> {
    let start = now();
    let result = work()?;
    Ok((result, start.elapsed()))
}

/// Runs the same work in so many threads at once; gives what each returns.
#[expect(clippy::disallowed_methods, reason = "threads of the benchmark's own")]
pub(crate) fn in_threads<T: Send>(
    count: usize,
    work: impl Fn() -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        // All are joined before the first failure is given.
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        results.into_iter().map(|result| result.map_err(|_| "a thread panicked")?).collect()
    })
}

/// Bytes that this process has handed to block devices, where the kernel counts them.
#[expect(clippy::disallowed_methods, reason = "the kernel answers in a file")]
pub(crate) fn bytes_written() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/self/io").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

/// Bytes that a folder's files have allocated.
pub(crate) fn allocated(folder: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in folder.read_dir()? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { allocated(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Gives a folder without anything in it, and a machine that is not busy writing what earlier ones held.
#[expect(clippy::disallowed_methods, reason = "folders of the benchmark's own")]
pub(crate) fn empty(folder: &Path) -> Result<(), Failure> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    std::process::Command::new("sync").status()?;
    Ok(())
}

/// Writes a report.
#[expect(clippy::disallowed_methods, reason = "a report is no data file of the engine")]
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|cause| format!("{}: {cause}", path.display()).into())
}
