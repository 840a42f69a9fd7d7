//! A small file system of a test's own, in a mount namespace of its own that ends with the process.
//!
//! A test that needs one calls [`inside`], which runs the same test again, in such a namespace, and there its body.
//! What the system does not allow ends as [`Refused`], and the test as skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::{Running, command, role, say, skip};

/// Why a volume cannot be had here.
#[derive(Debug)]
pub(crate) struct Refused(String);

/// Runs `body` in a mount namespace: in this process if it was started for that, else in one that this starts.
pub(crate) fn inside(test: &str, body: impl Fn(&Path) -> Result<(), Refused>) {
    if role().as_deref() == Some("inside") {
        let folder = tempfile::tempdir().unwrap();
        if let Err(Refused(reason)) = body(folder.path()) {
            say(&format!("refused {reason}"));
        }
        return;
    }
    let wrapper: &[&str] =
        if is_root() { &["unshare", "--mount"] } else { &["unshare", "--mount", "--map-root-user"] };
    if let Err(Refused(reason)) = run_command(wrapper, &["true"]) {
        return skip(test, &reason);
    }
    let ended = Running::start(command(wrapper, test, "inside")).end();
    for line in ended.succeeded() {
        match line.strip_prefix("refused ") {
            Some(reason) => skip(test, reason),
            None => println!("{line}"),
        }
    }
}

/// A user with another name for root may mount less than root itself.
fn is_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ids: Vec<&str> = map.split_whitespace().collect();
    use std::os::unix::fs::MetadataExt;
    ids.starts_with(&["0", "0"]) && fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn run_command(words: &[&str], more: &[&str]) -> Result<(), Refused> {
    let line = [words, more].concat().join(" ");
    let output = Command::new(words[0]).args(&words[1..]).args(more).output();
    let output = output.map_err(|error| Refused(format!("{line}: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    if output.status.success() { Ok(()) } else { Err(Refused(format!("{line}: {said}"))) }
}

/// Runs a command that the test cannot do without.
pub(crate) fn tool(words: &[&str]) -> Result<(), Refused> {
    run_command(words, &[])
}

/// Where a file system is mounted.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) path: PathBuf,
}

impl Volume {
    /// One in memory, of `size` bytes.
    pub(crate) fn memory(parent: &Path, name: &str, size: u64) -> Result<Self, Refused> {
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        tool(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", text(&path)])?;
        Ok(Self { path })
    }

    /// An ext4 on the image file at `image`, which it makes, of `size` bytes, without space of its own.
    pub(crate) fn ext4(parent: &Path, name: &str, image: &Path, size: u64) -> Result<Self, Refused> {
        fs::File::create(image).unwrap().set_len(size).unwrap();
        tool(&["mkfs.ext4", "-q", "-m", "0", "-F", text(image)])?;
        let path = parent.join(name);
        fs::create_dir(&path).unwrap();
        let volume = Self { path };
        volume.mount(image)?;
        Ok(volume)
    }

    /// Mounts the image once more.
    pub(crate) fn mount(&self, image: &Path) -> Result<(), Refused> {
        tool(&["mount", "-o", "loop,errors=continue", text(image), text(&self.path)])
    }

    /// Mounts what is mounted with other options.
    pub(crate) fn remount(&self, options: &str) -> Result<(), Refused> {
        tool(&["mount", "-o", &format!("remount,{options}"), text(&self.path)])
    }

    pub(crate) fn unmount(&self) -> Result<(), Refused> {
        tool(&["umount", text(&self.path)])
    }

    /// Fills what space is left with a file, and gives its path.
    pub(crate) fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.path.join("ballast");
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        for size in [1 << 16, 4096, 512] {
            let bytes = vec![7; size];
            // The error that is waited for is that there is no space.
            while file.write_all(&bytes).is_ok() {}
            file.sync_data().expect("what was written has its space");
        }
        path
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}
