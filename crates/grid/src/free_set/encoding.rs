//! The free set as bytes: three compressed bit sets, one form for each content.
//!
//! ```text
//! acquired words u64 | older words u64 | fresh words u64 | acquired ... | older ... | fresh ...
//! ```
//!
//! A bit set is a sequence of groups, everything in little-endian u64 words. A group starts with a marker: bit 0
//! is the value of a run, bits 1..32 the words in the run (all zeros or all ones), bits 32..64 the number of
//! literal words that follow the marker.
//!
//! # Invariants
//! - Equal sets give equal bytes, whatever the room or the history of the set: runs and literals are as long as
//!   they can be, words of zeros at the end are left out (`encoding_is_canonical`).
//! - The decoder takes nothing else: what it accepts, the encoder gives (`decoded_is_encoded_again`).
//! - It reserves no more memory than the highest address of the file calls for
//!   (`a_run_beyond_the_file_is_refused`).
//!
//! # Not here
//! How the bytes are cut into blocks (`trailer`).

use understory_format::{Corruption, Expected, u64_of};

use super::bit_set::BitSet;
use super::index_of;

const WORD_SIZE: usize = 8;
const SET_COUNT: usize = 3;
/// The longest run and the most literals of a group. Sets of up to 2^32 blocks have 2^26 words, so that a group
/// never has to be cut because of them.
const RUN_MAX: u64 = (1 << 31) - 1;

const _: () = assert!(super::LIMIT_MAX / super::bit_set::WORD_BITS <= RUN_MAX);

/// The most bytes that sets of integers below `bits` are encoded in: the counts, and of each set a literal or at
/// least a part of a run for every word, and one marker that begins no run.
pub(super) fn size_max(bits: u64) -> u64 {
    let words = bits.div_ceil(super::bit_set::WORD_BITS).saturating_add(2);
    words.saturating_mul(u64_of(SET_COUNT * WORD_SIZE))
}

/// Appends the encoding of `sets` to `out`.
pub(super) fn encode(sets: [&BitSet; SET_COUNT], out: &mut Vec<u8>) {
    let counts_at = out.len();
    out.resize(counts_at + SET_COUNT * WORD_SIZE, 0);
    let mut counts = [0_u64; SET_COUNT];
    for (set, count) in sets.into_iter().zip(&mut counts) {
        let before = out.len();
        encode_words(set.words(), out);
        *count = u64_of((out.len() - before) / WORD_SIZE);
    }
    let room = out.get_mut(counts_at..).expect("the room for the counts is there");
    for (count, place) in counts.into_iter().zip(room.chunks_exact_mut(WORD_SIZE)) {
        place.copy_from_slice(&count.to_le_bytes());
    }
}

fn encode_words(words: &[u64], out: &mut Vec<u8>) {
    let mut rest = words;
    while let Some(&first) = rest.first() {
        let run = if is_uniform(first) { rest.iter().take_while(|&&word| word == first).count() } else { 0 };
        let (_, after) = rest.split_at(run);
        let (literals, after) = after.split_at(after.iter().take_while(|&&word| !is_uniform(word)).count());
        let value = if run > 0 { first & 1 } else { 0 };
        let marker = value | (u64_of(run) << 1) | (u64_of(literals.len()) << 32);
        out.extend_from_slice(&marker.to_le_bytes());
        for literal in literals {
            out.extend_from_slice(&literal.to_le_bytes());
        }
        rest = after;
    }
}

/// Reads back what [`encode`] gave. `bits` is an upper bound of what the sets may hold.
///
/// # Errors
/// [`Corruption`] for anything that [`encode`] does not give.
pub(super) fn decode(bytes: &[u8], bits: u64) -> Result<[BitSet; SET_COUNT], Corruption> {
    if !bytes.len().is_multiple_of(WORD_SIZE) {
        return Err(wrong("free_set.size", Expected::Rule("a multiple of 8"), u64_of(bytes.len())));
    }
    let mut words = Words(bytes);
    let mut counts = [0_u64; SET_COUNT];
    for count in &mut counts {
        *count =
            words.next().ok_or_else(|| wrong("free_set.size", Expected::AtLeast(24), u64_of(bytes.len())))?;
    }
    let word_limit = bits.div_ceil(super::bit_set::WORD_BITS);
    let mut sets = [BitSet::default(), BitSet::default(), BitSet::default()];
    for (set, count) in sets.iter_mut().zip(counts) {
        *set = BitSet::from_words(decode_words(words.take(count)?, word_limit)?);
    }
    match u64_of(words.0.len()) {
        0 => Ok(sets),
        left => Err(wrong("free_set.size", Expected::Rule("nothing after the sets"), left)),
    }
}

fn decode_words(mut input: Words<'_>, word_limit: u64) -> Result<Vec<u64>, Corruption> {
    let mut out: Vec<u64> = Vec::new();
    let mut last: Option<Marker> = None;
    while let Some(word) = input.next() {
        let marker = Marker::parse(word);
        marker.check(last)?;
        let total = u64_of(out.len()) + marker.run + marker.literals;
        if total > word_limit {
            return Err(wrong("free_set.words", Expected::AtMost(u128::from(word_limit)), total));
        }
        out.resize(out.len() + index_of(marker.run), if marker.value { u64::MAX } else { 0 });
        for _ in 0..marker.literals {
            let Some(literal) = input.next() else {
                return Err(wrong("free_set.literal", Expected::Rule("as many as the marker says"), word));
            };
            if is_uniform(literal) {
                return Err(wrong(
                    "free_set.literal",
                    Expected::Rule("neither all zeros nor all ones"),
                    literal,
                ));
            }
            out.push(literal);
        }
        last = Some(marker);
    }
    match out.last() {
        Some(0) => Err(wrong("free_set.words", Expected::Rule("no zeros at the end"), u64_of(out.len()))),
        _ => Ok(out),
    }
}

fn is_uniform(word: u64) -> bool {
    word == 0 || word == u64::MAX
}

#[derive(Clone, Copy)]
struct Marker {
    word: u64,
    value: bool,
    run: u64,
    literals: u64,
}

impl Marker {
    fn parse(word: u64) -> Self {
        Self { word, value: word & 1 == 1, run: (word >> 1) & RUN_MAX, literals: word >> 32 }
    }

    /// Whether the encoder would have begun a new group here.
    fn check(self, last: Option<Self>) -> Result<(), Corruption> {
        let rule = |rule| Err(wrong("free_set.marker", Expected::Rule(rule), self.word));
        if self.run == 0 && self.literals == 0 {
            return rule("a run or literals");
        }
        if self.run == 0 && self.value {
            return rule("no value without a run");
        }
        let Some(last) = last else { return Ok(()) };
        if self.run == 0 {
            return rule("literals joined to those before");
        }
        if last.literals == 0 && last.value == self.value {
            return rule("a run joined to the one before");
        }
        Ok(())
    }
}

/// Little-endian words from bytes whose number is a multiple of 8.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<WORD_SIZE>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    fn take(&mut self, count: u64) -> Result<Words<'a>, Corruption> {
        let have = u64_of(self.0.len() / WORD_SIZE);
        if count > have {
            return Err(wrong("free_set.count", Expected::AtMost(u128::from(have)), count));
        }
        let (taken, rest) = self.0.split_at(index_of(count) * WORD_SIZE);
        self.0 = rest;
        Ok(Words(taken))
    }
}

fn wrong(field: &'static str, expected: Expected, found: u64) -> Corruption {
    Corruption::new(field, expected, u128::from(found))
}
