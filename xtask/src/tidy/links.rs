//! Relative links between the pages of the checkout, each of which must lead somewhere.

use super::Faults;
use crate::{Failure, checkout};
use std::path::Path;

pub(super) fn check(root: &Path, faults: &mut Faults) -> Result<(), Failure> {
    for path in checkout::files(root, &["md"])? {
        let text = checkout::read(&path)?;
        let folder = path.parent().unwrap_or(root);
        for target in targets(&text).filter(|target| !folder.join(target).exists()) {
            let shown = path.strip_prefix(root).unwrap_or(&path).display();
            faults.add(format!("{shown}: the link to {target} leads nowhere"));
        }
    }
    Ok(())
}

/// The files that a page links to, without places inside them.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split_once(')')?.0;
        let file = target.split('#').next()?;
        let elsewhere = file.is_empty() || file.contains("://") || file.contains(char::is_whitespace);
        (!elsewhere).then_some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(targets(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn only_files_of_the_checkout_are_targets() {
        check("see [rules](rules.md#clock) and [this](#here)", &["rules.md"]);
        check("[![badge](a.svg)](https://example.org/x)", &["a.svg"]);
        check("no link: a](b", &[]);
    }
}
