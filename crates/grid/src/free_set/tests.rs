//! The free set by hand, and its encoding against itself; against a model in `fuzz`.

mod fuzz;

use std::collections::BTreeSet;

use super::bit_set::BitSet;
use super::*;

fn address(number: u64) -> BlockAddress {
    BlockAddress::new(number).unwrap()
}

fn encoded(set: &FreeSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    bytes
}

/// A set with these addresses acquired, released in the interval before the last checkpoint, and since.
fn set_of(limit: u64, acquired: &[u64], older: &[u64], fresh: &[u64]) -> FreeSet {
    let mut set = FreeSet::new(limit);
    let mut reservation = set.reserve(limit.min(1000)).unwrap();
    let mut taken = BTreeSet::new();
    while reservation.left() > 0 {
        taken.insert(set.acquire(&mut reservation).get());
    }
    set.forfeit(reservation);
    for unwanted in taken.iter().filter(|number| !acquired.contains(number)) {
        set.release(address(*unwanted));
    }
    set.rotate();
    set.rotate();
    set.free_due();
    older.iter().for_each(|number| set.release(address(*number)));
    set.rotate();
    fresh.iter().for_each(|number| set.release(address(*number)));
    set
}

#[test]
fn encoding_is_canonical() {
    let small = set_of(200, &[1, 2, 3, 130], &[2], &[130]);
    let large = set_of(5000, &[1, 2, 3, 130], &[2], &[130]);
    assert_eq!(encoded(&small), encoded(&large), "the limit does not show");
    let read = FreeSet::decode(&encoded(&small), [], 130, 5000).unwrap();
    let mut moved_on = small.clone();
    moved_on.rotate();
    assert_eq!(encoded(&read), encoded(&moved_on), "the history does not show");
}

#[test]
fn encoding_of_known_sets() {
    let words = |set: &FreeSet| -> Vec<u64> {
        encoded(set).chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
    };
    let check = |set: &FreeSet, expected: &[u64]| assert_eq!(words(set), expected);
    let ones = |count: u64| 1 | (count << 1);
    let literals = |count: u64| count << 32;
    check(&FreeSet::new(1000), &[0, 0, 0]);
    check(&set_of(200, &[1, 3], &[3], &[]), &[2, 2, 0, literals(1), 0b101, literals(1), 0b100]);
    let many: Vec<u64> = (1..=130).collect();
    check(&set_of(200, &many, &[], &[]), &[2, 0, 0, ones(2) | literals(1), 0b11]);
    let apart: Vec<u64> = (1..=64).chain(129..=192).chain([257]).collect();
    let zeros = |count: u64| count << 1;
    let expected = [5, 0, 0, ones(1), zeros(1), ones(1), zeros(1) | literals(1), 1];
    check(&set_of(300, &apart, &[], &[]), &expected);
}

/// Whatever the words are, none takes more than its share of [`encoding::size_max`].
#[test]
fn no_encoding_is_larger_than_its_bound() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..500 {
        let count = random.u64(0..40);
        let words = (0..count).map(|_| [0, u64::MAX, random.u64(..), 1][random.usize(0..4)]).collect();
        let set = BitSet::from_words(words);
        let mut bytes = Vec::new();
        encoding::encode([&set, &set, &set], &mut bytes);
        assert!(u64::try_from(bytes.len()).unwrap() <= encoding::size_max(64 * count));
    }
    let mut bytes = Vec::new();
    let literal = BitSet::from_words(vec![1]);
    encoding::encode([&literal, &literal, &literal], &mut bytes);
    assert_eq!(u64::try_from(bytes.len()).unwrap(), encoding::size_max(1), "the bound is met");
}

#[test]
fn decoded_equals_the_running_set() {
    let mut set = set_of(500, &(1..=100).collect::<Vec<_>>(), &[5, 6], &[70]);
    // What is still due is written with what is older.
    set.rotate();
    set.release(address(9));
    let bytes = encoded(&set);
    set.rotate();
    let read = FreeSet::decode(&bytes, [], set.highest(), 500).unwrap();
    assert_eq!(read, set);
    assert_eq!(set.due(), 3);
    assert_eq!(set.space().released, 4);
}

#[test]
fn decoded_is_encoded_again() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut accepted = 0;
    for _ in 0..40_000 {
        let mut words = Vec::new();
        for _ in 0..random.usize(0..9) {
            words.push(match random.u32(0..8) {
                0 => 0,
                1 => u64::MAX,
                2 => random.u64(..),
                3 => random.u64(0..4),
                _ => random.u64(0..2) | (random.u64(0..3) << 1) | (random.u64(0..3) << 32),
            });
        }
        let (count, rest) = (u64::try_from(words.len()).unwrap(), random.u64(0..3));
        let older = random.u64(0..=count.min(rest));
        let mut bytes = Vec::new();
        for word in [count - older, older, 0].iter().chain(&words) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        if let Ok(sets) = encoding::decode(&bytes, 1000) {
            let mut again = Vec::new();
            encoding::encode([&sets[0], &sets[1], &sets[2]], &mut again);
            assert_eq!(again, bytes);
            accepted += 1;
        }
    }
    assert!(accepted > 100, "some were good: {accepted}");
}

#[test]
fn a_run_beyond_the_file_is_refused() {
    let mut bytes = Vec::new();
    for word in [1_u64, 0, 0, 1 | (((1 << 31) - 1) << 1)] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let error = FreeSet::decode(&bytes, [], 640, 640).unwrap_err();
    assert_eq!((error.field, error.expected), ("free_set.words", Expected::AtMost(10)));
}

#[test]
fn corrupt_encodings_are_refused() {
    let good = set_of(500, &(1..=200).collect::<Vec<_>>(), &[5], &[70]);
    let bytes = encoded(&good);
    let check = |bytes: &[u8], trailers: &[u64], highest: u64, field: &str| {
        let trailers = trailers.iter().map(|number| address(*number));
        let error = FreeSet::decode(bytes, trailers, highest, 500).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    };
    assert!(FreeSet::decode(&bytes, [address(201)], 201, 500).is_ok());
    check(&bytes, &[200], 200, "free_set.trailer");
    check(&bytes, &[201, 201], 201, "free_set.trailer");
    check(&bytes, &[201, 202], 201, "free_set.trailer");
    check(&bytes, &[1 << 60, 201], 201, "free_set.trailer");
    check(&bytes, &[], 201, "block_count_max");
    check(&bytes, &[], 1 << 33, "block_count_max");
    check(&bytes, &[], 64, "free_set.words");
    check(&bytes[..7], &[], 200, "free_set.size");
    check(&bytes[..16], &[], 200, "free_set.size");
    let with = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let literals = |count: u64| count << 32;
    check(&with(&[3, 0, 0, 1]), &[], 200, "free_set.count");
    check(&with(&[2, 0, 0, literals(1), 1, 0]), &[], 200, "free_set.size");
    check(&with(&[1, 0, 0, 0]), &[], 200, "free_set.marker");
    check(&with(&[1, 0, 0, literals(1)]), &[], 200, "free_set.literal");
    check(&with(&[2, 0, 0, literals(1), 0]), &[], 200, "free_set.literal");
    check(&with(&[1, 0, 0, 2]), &[], 200, "free_set.words");
    check(&with(&[2, 0, 0, 3, 3]), &[], 200, "free_set.marker");
    check(&with(&[4, 0, 0, literals(1), 1, literals(1), 1]), &[], 200, "free_set.marker");
    check(&with(&[2, 2, 0, literals(1), 1, literals(1), 2]), &[], 1, "free_set.older");
    check(&with(&[2, 0, 2, literals(1), 1, literals(1), 2]), &[], 1, "free_set.fresh");
    check(&with(&[2, 2, 2, literals(1), 1, literals(1), 1, literals(1), 1]), &[], 1, "free_set.fresh");
}

#[test]
fn no_flip_of_a_bit_is_taken_for_something_else() {
    let good = set_of(500, &(1..=200).filter(|n| n % 7 != 0).collect::<Vec<_>>(), &[5], &[71]);
    let bytes = encoded(&good);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if let Ok(set) = FreeSet::decode(&bad, [], good.highest(), 500) {
            set.verify();
            let sets = encoding::decode(&bad, good.highest()).unwrap();
            let mut again = Vec::new();
            encoding::encode([&sets[0], &sets[1], &sets[2]], &mut again);
            assert_eq!(again, bad);
        }
    }
}

#[test]
#[should_panic(expected = "released twice")]
fn releasing_twice_is_our_mistake() {
    let mut set = set_of(100, &[1, 2], &[1], &[]);
    set.release(address(1));
}

#[test]
#[should_panic(expected = "no block becomes free while there are reservations")]
fn freeing_under_a_reservation_is_our_mistake() {
    let mut set = FreeSet::new(100);
    let _reservation = set.reserve(1).unwrap();
    set.free_due();
}

#[test]
#[should_panic(expected = "sized for all that is drawn")]
fn drawing_more_than_reserved_is_our_mistake() {
    let mut set = FreeSet::new(100);
    let mut reservation = set.reserve(1).unwrap();
    let _first = set.acquire(&mut reservation);
    let _second = set.acquire(&mut reservation);
}
