//! The records of each table, seen newest first: which of them is news, and which cannot be.
//!
//! Forwards, the records of one index address are lives one after another: an insert, updates, a remove. Of
//! the oldest life the beginning may be missing, since the oldest blocks are released. Backwards this is an
//! automaton of a few states per address.

use understory_format::{BlockAddress, Corruption, EditKind, Expected, ManifestEdit};

use crate::extents::AddressMap;

/// What the next older record of an address may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Older {
    /// More of the same life: an update or its insert.
    SameLife,
    /// The end of the life before.
    EarlierLife,
}

/// What the records read so far say of each address.
#[derive(Debug, Default)]
pub(crate) struct History {
    older: AddressMap<Older>,
}

impl History {
    /// Takes the next older record. True if it is the newest of its table and the table is live.
    pub(crate) fn take(&mut self, edit: &ManifestEdit) -> Result<bool, Corruption> {
        let address = edit.table.index.address;
        let seen = self.older.get(&address).copied();
        let older = match (edit.kind, seen) {
            (EditKind::Insert, None | Some(Older::SameLife)) => Older::EarlierLife,
            (EditKind::Update, None | Some(Older::SameLife)) => Older::SameLife,
            (EditKind::Remove, None | Some(Older::EarlierLife)) => Older::SameLife,
            (EditKind::Insert | EditKind::Update, Some(Older::EarlierLife)) => {
                return Err(broken("between two lives of a table it is removed", address));
            }
            (EditKind::Remove, Some(Older::SameLife)) => {
                return Err(broken("no record follows the remove of a table but an insert", address));
            }
        };
        self.older.insert(address, older);
        Ok(seen.is_none() && edit.kind != EditKind::Remove)
    }
}

fn broken(rule: &'static str, address: BlockAddress) -> Corruption {
    Corruption::new("kind", Expected::Rule(rule), address.get().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::edit;

    /// Records forwards; what of them is news when read backwards, or none if they cannot be.
    fn check(records: &str, expected: Option<&str>) {
        let mut history = History::default();
        let mut news: Vec<char> = Vec::new();
        for record in records.chars().rev() {
            let kind = match record.to_ascii_lowercase() {
                'i' => EditKind::Insert,
                'u' => EditKind::Update,
                _ => EditKind::Remove,
            };
            // Upper case is another table.
            let address = if record.is_ascii_uppercase() { 3 } else { 1 };
            match history.take(&edit(kind, 0, address)) {
                Ok(true) => news.push(record),
                Ok(false) => {}
                Err(_) => return assert_eq!(expected, None, "{records}"),
            }
        }
        assert_eq!(Some(news.into_iter().collect::<String>().as_str()), expected, "{records}");
    }

    #[test]
    fn lives() {
        for (records, expected) in [
            ("i", Some("i")),
            ("u", Some("u")),
            ("r", Some("")),
            ("iu", Some("u")),
            ("uu", Some("u")),
            ("ir", Some("")),
            ("ur", Some("")),
            ("iuur", Some("")),
            ("iri", Some("i")),
            ("uriu", Some("u")),
            ("rir", Some("")),
            ("iriurir", Some("")),
            ("ii", None),
            ("ui", None),
            ("iui", None),
            ("rr", None),
            ("irr", None),
            ("ru", None),
            ("irur", None),
            ("iiri", None),
            ("iIuUrR", Some("")),
            ("iIuUr", Some("U")),
            ("iIruUr", None),
        ] {
            check(records, expected);
        }
    }

    /// Forwards, in other words: the newest record if the table is live, or `Err` if they cannot follow each other.
    fn forwards(records: &str) -> Result<Option<char>, ()> {
        let mut live = None;
        for (index, record) in records.chars().enumerate() {
            live = match (record, live) {
                (_, _) if index == 0 => Some(record != 'r'),
                ('i', Some(false)) | ('u', Some(true)) => Some(true),
                ('r', Some(true)) => Some(false),
                _ => return Err(()),
            };
        }
        Ok(records.chars().last().filter(|_| live == Some(true)))
    }

    #[test]
    fn all_short_histories() {
        let mut histories = vec![String::new()];
        for _ in 0..7 {
            let longer = histories.iter().flat_map(|h| ["i", "u", "r"].map(|record| h.clone() + record));
            histories = histories.iter().cloned().chain(longer.collect::<Vec<_>>()).collect();
            histories.sort();
            histories.dedup();
        }
        assert_eq!(histories.len(), 3280);
        for records in histories {
            let expected = forwards(&records).map(|news| news.map(String::from).unwrap_or_default()).ok();
            check(&records, expected.as_deref());
        }
    }
}
