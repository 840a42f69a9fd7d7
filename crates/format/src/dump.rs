//! Blocks as text, one field per line, and the layout tables as pages.
use crate::layout::Layout;

/// All layouts.
#[must_use]
pub fn layouts() -> &'static [&'static Layout] {
    &[]
}
/// A struct as text.
#[must_use]
pub fn dump(_layout: &Layout, _bytes: &[u8]) -> String {
    String::new()
}
/// A block as text.
#[must_use]
pub fn dump_block(_block: &[u8]) -> String {
    String::new()
}
/// A superblock copy as text.
#[must_use]
pub fn dump_superblock(_bytes: &[u8]) -> String {
    String::new()
}
/// A layout as a page.
#[must_use]
pub fn markdown(_layout: &Layout) -> String {
    String::new()
}
