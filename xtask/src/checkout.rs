//! The checkout this program runs in: its root, its files, and cargo started on it.

use crate::Failure;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders that hold nothing a person wrote.
const SKIPPED: [&str; 3] = [".git", "target", "data"];

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> Result<PathBuf, Failure> {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("start this program with `cargo xtask`")?;
    let root = Path::new(&xtask).parent().ok_or("xtask lies in no folder")?;
    Ok(root.to_path_buf())
}

/// The cargo that started this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo set for this program is not meant for what it starts.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end, on the terminal of this program.
pub(crate) fn finish(command: &mut Command, what: &str) -> Result<(), Failure> {
    let status = command.status().map_err(|cause| format!("{what} did not start: {cause}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})").into()) }
}

/// Every file below `folder` whose name ends in one of `extensions`, sorted, without build output.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().map_err(|cause| format!("{}: {cause}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                if !path.file_name().and_then(OsStr::to_str).is_some_and(|name| SKIPPED.contains(&name)) {
                    folders.push(path);
                }
            } else if path.extension().and_then(OsStr::to_str).is_some_and(|it| extensions.contains(&it)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The text of a file.
#[expect(clippy::disallowed_methods, reason = "a tool that reads the checkout")]
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|cause| format!("{}: {cause}", path.display()).into())
}

/// Replaces a file's text, and says so if it changed anything.
#[expect(clippy::disallowed_methods, reason = "a tool that writes generated files of the checkout")]
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if read(path).is_ok_and(|current| current == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text).map_err(|cause| format!("{}: {cause}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Removes a file, and says so.
#[expect(clippy::disallowed_methods, reason = "a tool that writes generated files of the checkout")]
pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
    std::fs::remove_file(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    println!("removed {}", path.display());
    Ok(())
}
