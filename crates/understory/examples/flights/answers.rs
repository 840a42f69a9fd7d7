//! The questions of the demo, and a type for their answers that two independent ways of answering share.
//!
//! Everything in an answer is text or a count, so that the plain pass over the CSV needs nothing of the engine and
//! none of the demo's records.

use serde_json::{Value, json};

/// The aircraft whose flights are listed.
pub(crate) const AIRCRAFT: &str = "N725MQ";
/// The two ends of the route whose flights are listed.
pub(crate) const ROUTE: (&str, &str) = ("JFK", "LAX");
/// How many destinations are called the busiest.
pub(crate) const BUSIEST: usize = 10;

/// Names with counts.
pub(crate) type Counts = Vec<(String, u64)>;

/// The answers to all questions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Flights of each carrier, by its code.
    pub(crate) carriers: Counts,
    /// Flights from each airport, by its code.
    pub(crate) origins: Counts,
    /// The destinations with the most flights, most first; equal ones by code.
    pub(crate) destinations: Counts,
    /// All flights of one aircraft in time order.
    pub(crate) aircraft: Vec<String>,
    /// The same from the last to the first.
    pub(crate) aircraft_backwards: Vec<String>,
    /// The day with the most flights; of equal ones the first.
    pub(crate) busiest_day: Counts,
    /// All flights of one route in time order.
    pub(crate) route: Vec<String>,
}

/// One question with its answer, for reports.
pub(crate) struct Answer<'a> {
    pub(crate) name: &'static str,
    pub(crate) answer: Lines<'a>,
}

/// What an answer is made of.
#[derive(PartialEq, Eq)]
pub(crate) enum Lines<'a> {
    Counts(&'a Counts),
    Flights(&'a [String]),
}

impl Answers {
    /// All answers in the order in which they are reported.
    pub(crate) fn all(&self) -> [Answer<'_>; 7] {
        [
            Answer { name: "flights per carrier", answer: Lines::Counts(&self.carriers) },
            Answer { name: "flights per origin", answer: Lines::Counts(&self.origins) },
            Answer { name: "ten busiest destinations", answer: Lines::Counts(&self.destinations) },
            Answer { name: "flights of N725MQ in time order", answer: Lines::Flights(&self.aircraft) },
            Answer { name: "flights of N725MQ backwards", answer: Lines::Flights(&self.aircraft_backwards) },
            Answer { name: "busiest day", answer: Lines::Counts(&self.busiest_day) },
            Answer { name: "flights from JFK to LAX", answer: Lines::Flights(&self.route) },
        ]
    }
}

impl Lines<'_> {
    /// The whole answer.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Lines::Counts(counts) => {
                Value::Object(counts.iter().map(|(name, count)| (name.clone(), json!(count))).collect())
            }
            Lines::Flights(flights) => json!({ "count": flights.len(), "flights": flights }),
        }
    }

    /// The answer on one line, with what is too long left out.
    pub(crate) fn summary(&self) -> String {
        match self {
            Lines::Counts(counts) => {
                counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
            }
            Lines::Flights(flights) => match flights {
                [first, .., last] => format!("{}: {first} ... {last}", flights.len()),
                few => few.join(", "),
            },
        }
    }
}

/// The busiest `count` of what was counted, most first; equal ones by name.
pub(crate) fn busiest(mut counts: Counts, count: usize) -> Counts {
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.truncate(count);
    counts
}

/// A day as answers spell it.
pub(crate) fn day(year: u16, month: u8, day: u8) -> String {
    format!("{year:04}-{month:02}-{day:02}")
}
