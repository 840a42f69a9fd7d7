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
pub(crate) fn bytes_written() -> Option<u64> {
    counter("write_bytes: ")
}

/// Bytes that this process has had from block devices, where the kernel counts them.
pub(crate) fn bytes_read() -> Option<u64> {
    counter("read_bytes: ")
}

#[expect(clippy::disallowed_methods, reason = "the kernel answers in a file")]
fn counter(name: &str) -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/self/io").ok()?;
    counters.lines().find_map(|line| line.strip_prefix(name))?.parse().ok()
}

/// Time of processors that the host gave to others while this machine had work, since the machine was started.
#[expect(clippy::disallowed_methods, reason = "the kernel answers in a file")]
pub(crate) fn steal() -> Option<Duration> {
    let ticks = std::fs::read_to_string("/proc/stat").ok()?;
    let ticks: u64 = ticks.lines().next()?.split_whitespace().nth(8)?.parse().ok()?;
    Some(Duration::from_millis(10 * ticks))
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

/// Writes a file of so many bytes without holes, and reads so many pages of 16 KiB at random places of it, around the page
/// cache; the time that the reads take.
#[expect(clippy::disallowed_types, reason = "what the disk itself can do")]
pub(crate) fn raw_reads(path: &Path, bytes: u64, count: u64) -> Result<Duration, Failure> {
    use std::io::Write;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    const PAGE: usize = 16 << 10;
    const ALIGNMENT: usize = 4096;
    let mut random = fastrand::Rng::with_seed(5);
    let mut pages = vec![0; 64 * PAGE];
    random.fill(&mut pages);
    let mut file = std::fs::File::create(path)?;
    let mut written = 0;
    while written < bytes {
        file.write_all(&pages)?;
        written += u64::try_from(pages.len())?;
    }
    file.sync_all()?;
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits())?;
    let file = std::fs::File::options().read(true).custom_flags(direct).open(path)?;
    let size = u64::try_from(PAGE)?;
    let start = pages.as_ptr().align_offset(ALIGNMENT);
    let page = pages.get_mut(start..start + PAGE).ok_or("the buffer is larger")?;
    let ((), took) = timed(|| {
        for _ in 0..count {
            file.read_exact_at(page, random.u64(..written / size) * size)?;
        }
        Ok(())
    })?;
    Ok(took)
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
