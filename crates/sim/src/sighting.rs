//! What a read showed, as far as it tells how much of each client's work was visible, and whether all sightings fit one
//! order.
//!
//! A view shows the ops up to one number V. A sighting knows V only through the clients' commits: client c showed its
//! first j commits, so V is at least the op of the j-th and below that of the next. Some of these op numbers are known
//! only later, so sightings are judged when the handle is gone. Then there must be a V for each sighting, and a view
//! that was taken after another must not show less.
//!
//! # Not here
//! How j is found from rows: `book`.

use crate::trace::Violation;

/// For each client, how many of its commits the rows may stem from: ascending, at least one number.
pub(crate) type Sets = Vec<Vec<u32>>;

/// A read, between two moments.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    /// When it was asked for.
    pub(crate) start: u64,
    /// When its view was fixed, at the latest.
    pub(crate) end: u64,
    pub(crate) what: What,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Rows.
    Rows(Sets),
    /// The database said which op it shows.
    Op(u64),
}

/// The ops of clients' commits in this life, by client and commit: the 0-th is what the life began with.
pub(crate) trait Ops {
    /// The op of a client's commit: a lower bound of it, as far as known.
    fn lower(&self, client: usize, index: u32) -> u64;
    /// The op of a client's commit, or no bound if it is not known or there is no such commit.
    fn upper(&self, client: usize, index: u32) -> u64;
}

/// Judges all sightings of a life. Gives the greatest op that a view is known to have shown.
pub(crate) fn judge(mut sightings: Vec<Sighting>, ops: &impl Ops) -> Result<u64, Violation> {
    sightings.sort_by_key(|sighting| sighting.start);
    // Views that were fixed, by when, with the least that they showed.
    let mut fixed: Vec<(u64, u64)> = Vec::new();
    let mut shown = 0;
    for sighting in &sightings {
        let before = fixed.iter().filter(|(end, _)| *end < sighting.start).map(|(_, least)| *least).max();
        let least = least_op(&sighting.what, ops, before.unwrap_or(0))
            .ok_or_else(|| Violation::new(misfit(sighting, ops, before)))?;
        shown = shown.max(least);
        fixed.push((sighting.end, least));
    }
    Ok(shown)
}

fn misfit(sighting: &Sighting, ops: &impl Ops, before: Option<u64>) -> String {
    let mut words = format!("no single op explains {sighting:?}, with {before:?} shown before it; ops:");
    if let What::Rows(sets) = &sighting.what {
        for (client, set) in sets.iter().enumerate() {
            let bounds = set.iter().map(|index| (ops.lower(client, *index), ops.upper(client, index + 1)));
            words.push_str(&format!(" client {client}: {:?}", bounds.collect::<Vec<_>>()));
        }
    }
    words
}

/// The least op, from `from` on, that explains what was seen.
fn least_op(what: &What, ops: &impl Ops, from: u64) -> Option<u64> {
    let sets = match what {
        What::Op(op) => return (*op >= from).then_some(*op),
        What::Rows(sets) => sets,
    };
    let explains = |op: u64| {
        let mut clients = sets.iter().enumerate();
        clients.all(|(client, set)| {
            set.iter().any(|index| ops.lower(client, *index) <= op && op < ops.upper(client, index + 1))
        })
    };
    // Where any op explains it, the least is `from` or the first of somebody's interval.
    let clients = sets.iter().enumerate();
    let starts = clients.flat_map(|(client, set)| set.iter().map(move |index| ops.lower(client, *index)));
    starts.chain([from]).filter(|op| *op >= from && explains(*op)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client 0 has the ops 1, 4 and 5, client 1 the ops 2 and 3 and one that is not known.
    struct Fixed;

    impl Ops for Fixed {
        fn lower(&self, client: usize, index: u32) -> u64 {
            match (client, index) {
                (_, 0) => 0,
                (0, 1) => 1,
                (0, 2) => 4,
                (0, 3) => 5,
                (1, 1) => 2,
                (1, 2) => 3,
                (1, 3) => 4,
                _ => u64::MAX,
            }
        }

        fn upper(&self, client: usize, index: u32) -> u64 {
            if (client, index) == (1, 3) { u64::MAX } else { self.lower(client, index) }
        }
    }

    fn rows(at: u64, sets: [&[u32]; 2]) -> Sighting {
        let sets = sets.map(<[u32]>::to_vec).to_vec();
        Sighting { start: at, end: at, what: What::Rows(sets) }
    }

    fn check(sightings: &[Sighting], expected: Option<u64>) {
        assert_eq!(judge(sightings.to_vec(), &Fixed).ok(), expected);
    }

    #[test]
    fn views_are_cuts_of_one_order() {
        check(&[], Some(0));
        check(&[rows(1, [&[0], &[0]])], Some(0));
        check(&[rows(1, [&[1], &[0]])], Some(1));
        // Op 2 without op 1.
        check(&[rows(1, [&[0], &[1]])], None);
        check(&[rows(1, [&[0, 1], &[1]])], Some(2));
        check(&[rows(1, [&[2], &[1]])], None);
        check(&[rows(1, [&[2], &[2]])], Some(4));
        // What is not known fits anywhere after what came before it.
        check(&[rows(1, [&[1], &[3]])], None);
        check(&[rows(1, [&[2], &[3]])], Some(4));
        check(&[rows(1, [&[3], &[2, 3]])], Some(5));
    }

    #[test]
    fn later_views_show_no_less() {
        check(&[rows(1, [&[1], &[1]]), rows(2, [&[1], &[2]])], Some(3));
        check(&[rows(2, [&[1], &[1]]), rows(1, [&[1], &[2]])], None);
        let mut long = rows(1, [&[1], &[2]]);
        long.end = 9;
        check(&[rows(2, [&[1], &[1]]), long], Some(3));
        let said = |op| Sighting { start: 3, end: 3, what: What::Op(op) };
        check(&[rows(1, [&[1], &[2]]), said(3)], Some(3));
        check(&[rows(1, [&[1], &[2]]), said(2)], None);
    }
}
