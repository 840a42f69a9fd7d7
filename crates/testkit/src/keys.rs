//! Keys that nearly collide.
//!
//! Faults of a store hide where keys touch: one above the greatest of a page, one below the least of a table, keys
//! that share their first 8 or their last bytes, a few keys written over and over. [`KeyPool`] makes such keys,
//! [`near`] what stands beside one, and [`key_range`] bounds that just hit or just miss.
//!
//! # Invariants
//! - `a.after() == Some(b)` exactly if `b.before() == Some(a)`, and then nothing is between them (test).

use fastrand::Rng;
use understory_format::{Key, KeyPart};

/// A key with neighbours.
pub trait Ordinal: Key {
    /// The next greater key; `None` for the greatest.
    fn after(self) -> Option<Self>;

    /// The next smaller key; `None` for the least.
    fn before(self) -> Option<Self>;

    /// Any key, all equally likely.
    fn random(rng: &mut Rng) -> Self;

    /// The number-th key of a space in which keys ascend with their number and have gaps of about `2^gap_bits`.
    fn spread(number: u64, gap_bits: u32) -> Self;
}

/// One field of a key with neighbours.
pub trait OrdinalPart: KeyPart {
    /// The next greater value.
    fn after(self) -> Option<Self>;

    /// The next smaller value.
    fn before(self) -> Option<Self>;

    /// Any value.
    fn random(rng: &mut Rng) -> Self;

    /// The value of a number, cut to the field's width.
    fn cut(number: u128) -> Self;
}

macro_rules! ordinal_uint {
    ($($type:ident),+) => {$(
        impl OrdinalPart for $type {
            fn after(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }

            fn random(rng: &mut Rng) -> Self {
                rng.$type(..)
            }

            fn cut(number: u128) -> Self {
                number.try_into().unwrap_or(Self::MAX)
            }
        }

        impl Ordinal for $type {
            fn after(self) -> Option<Self> {
                OrdinalPart::after(self)
            }

            fn before(self) -> Option<Self> {
                OrdinalPart::before(self)
            }

            fn random(rng: &mut Rng) -> Self {
                OrdinalPart::random(rng)
            }

            fn spread(number: u64, gap_bits: u32) -> Self {
                Self::cut(u128::from(number) << gap_bits)
            }
        }
    )+};
}

ordinal_uint!(u32, u64, u128);

impl<const N: usize> OrdinalPart for [u8; N] {
    fn after(mut self) -> Option<Self> {
        let stopped = self.iter_mut().rev().any(|byte| {
            *byte = byte.wrapping_add(1);
            *byte != 0
        });
        stopped.then_some(self)
    }

    fn before(mut self) -> Option<Self> {
        let stopped = self.iter_mut().rev().any(|byte| {
            *byte = byte.wrapping_sub(1);
            *byte != u8::MAX
        });
        stopped.then_some(self)
    }

    fn random(rng: &mut Rng) -> Self {
        let mut bytes = [0; N];
        rng.fill(&mut bytes);
        bytes
    }

    fn cut(number: u128) -> Self {
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().rev().zip(number.to_le_bytes()) {
            *to = from;
        }
        bytes
    }
}

impl<A: OrdinalPart, B: OrdinalPart> Ordinal for (A, B) {
    fn after(self) -> Option<Self> {
        let (a, b) = self;
        b.after().map(|b| (a, b)).or_else(|| a.after().map(|a| (a, B::MIN)))
    }

    fn before(self) -> Option<Self> {
        let (a, b) = self;
        b.before().map(|b| (a, b)).or_else(|| a.before().map(|a| (a, B::MAX)))
    }

    fn random(rng: &mut Rng) -> Self {
        (A::random(rng), B::random(rng))
    }

    fn spread(number: u64, gap_bits: u32) -> Self {
        (A::cut(u128::from(number >> 8)), B::cut(u128::from(number & 0xff) << gap_bits))
    }
}

impl<A: OrdinalPart, B: OrdinalPart, C: OrdinalPart, D: OrdinalPart> Ordinal for (A, B, C, D) {
    fn after(self) -> Option<Self> {
        let (a, b, c, d) = self;
        let low = Ordinal::after((c, d)).map(|(c, d)| (a, b, c, d));
        low.or_else(|| Ordinal::after((a, b)).map(|(a, b)| (a, b, C::MIN, D::MIN)))
    }

    fn before(self) -> Option<Self> {
        let (a, b, c, d) = self;
        let low = Ordinal::before((c, d)).map(|(c, d)| (a, b, c, d));
        low.or_else(|| Ordinal::before((a, b)).map(|(a, b)| (a, b, C::MAX, D::MAX)))
    }

    fn random(rng: &mut Rng) -> Self {
        (A::random(rng), B::random(rng), C::random(rng), D::random(rng))
    }

    fn spread(number: u64, gap_bits: u32) -> Self {
        let byte = |shift: u32| u128::from(number >> shift & 0xff);
        (A::cut(u128::from(number >> 24)), B::cut(byte(16)), C::cut(byte(8)), D::cut(byte(0) << gap_bits))
    }
}

/// How the keys of a pool lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyShape {
    /// Each the neighbour of the one before.
    Adjacent,
    /// In order with equal gaps, so that every key has absent neighbours.
    Spread,
    /// Anywhere in the type's range.
    Random,
    /// Equal in the first bytes or in the last ones: prefixes tie, hashes of ends do.
    EqualEnds,
    /// A share of each of the others, and both ends of the type's range.
    Mixed,
}

/// A set of keys, and how often each is drawn.
#[derive(Clone, Debug)]
pub struct KeyPool<K> {
    keys: Vec<K>,
    hot: usize,
}

impl<K: Ordinal> KeyPool<K> {
    /// About `count` different keys of this shape, ascending.
    #[must_use]
    pub fn new(rng: &mut Rng, shape: KeyShape, count: usize) -> Self {
        let mut keys = match shape {
            KeyShape::Adjacent => adjacent(rng, count),
            KeyShape::Spread => spread(count),
            KeyShape::Random => (0..count).map(|_| K::random(rng)).collect(),
            KeyShape::EqualEnds => equal_ends(rng, count),
            KeyShape::Mixed => {
                let quarter = count / 4;
                let mut keys = adjacent(rng, quarter);
                keys.extend(spread::<K>(quarter));
                keys.extend(equal_ends::<K>(rng, quarter));
                keys.extend((0..quarter).map(|_| K::random(rng)));
                keys.extend([K::MIN, K::MAX].into_iter().flat_map(|end| near(end)));
                keys
            }
        };
        keys.sort_unstable();
        keys.dedup();
        let hot = (keys.len() / 10).max(1);
        Self { keys, hot }
    }

    /// The keys, ascending.
    #[must_use]
    pub fn keys(&self) -> &[K] {
        &self.keys
    }

    /// One of the keys, all equally likely.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick(&self, rng: &mut Rng) -> K {
        rng.choice(&self.keys).copied().expect("a pool has keys")
    }

    /// One of the keys; nine of ten times one of a tenth of them, spread over the whole range.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick_hot(&self, rng: &mut Rng) -> K {
        if rng.u8(..10) == 0 {
            return self.pick(rng);
        }
        let step = self.keys.len() / self.hot;
        self.keys.get(rng.usize(..self.hot) * step).copied().expect("a pool has keys")
    }

    /// One of the keys or of their neighbours, which may not be in the pool.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick_near(&self, rng: &mut Rng) -> K {
        let near = near(self.pick(rng));
        rng.choice(&near).copied().expect("a key is near itself")
    }
}

fn adjacent<K: Ordinal>(rng: &mut Rng, count: usize) -> Vec<K> {
    let up: Vec<K> = std::iter::successors(Some(K::random(rng)), |key| key.after()).take(count).collect();
    let missing = count - up.len();
    let first = up.first().and_then(|key| key.before());
    std::iter::successors(first, |key| key.before()).take(missing).chain(up).collect()
}

fn spread<K: Ordinal>(count: usize) -> Vec<K> {
    (1_u64..).take(count).map(|number| K::spread(number, 4)).collect()
}

/// Half the keys differ from one in their last encoded byte or two only, half in their first.
fn equal_ends<K: Ordinal>(rng: &mut Rng, count: usize) -> Vec<K> {
    let base = K::random(rng).encode();
    let make = |number: usize| {
        let mut bytes = base;
        let (low, high) = (number % 256, number / 256);
        let place = if number.is_multiple_of(2) { [0, 1] } else { [K::SIZE - 1, K::SIZE.saturating_sub(2)] };
        for (place, value) in place.into_iter().zip([low, high]) {
            if let (Some(byte), Ok(value)) = (bytes.0.get_mut(place), u8::try_from(value % 256)) {
                *byte = byte.wrapping_add(value);
            }
        }
        K::decode(bytes.key(K::SIZE))
    };
    (0..count).map(make).collect()
}

/// The key and its neighbours at distance 1 and 2, as far as there are any.
#[must_use]
pub fn near<K: Ordinal>(key: K) -> Vec<K> {
    let up = std::iter::successors(Some(key), |key| key.after()).take(3);
    let down = std::iter::successors(key.before(), |key| key.before()).take(2);
    up.chain(down).collect()
}

/// Inclusive bounds, least first, that hit a key of the pool exactly, just miss it, or lie anywhere; at times one
/// key wide, at times the whole range.
pub fn key_range<K: Ordinal>(rng: &mut Rng, pool: &KeyPool<K>) -> (K, K) {
    let (a, b) = match rng.u8(..8) {
        0 => (K::MIN, K::MAX),
        1 => {
            let key = pool.pick_near(rng);
            (key, key)
        }
        2 => (pool.pick_near(rng), K::MAX),
        3 => (K::MIN, pool.pick_near(rng)),
        4 => (K::random(rng), K::random(rng)),
        _ => (pool.pick_near(rng), pool.pick_near(rng)),
    };
    (a.min(b), a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Wide = ([u8; 4], u32, u64, u128);

    fn all<K: Ordinal>() -> Vec<K> {
        let mut rng = Rng::with_seed(7);
        KeyPool::new(&mut rng, KeyShape::Mixed, 400).keys().to_vec()
    }

    #[test]
    fn neighbours_are_neighbours() {
        fn check<K: Ordinal>() {
            for key in all::<K>() {
                if let Some(after) = key.after() {
                    assert!(key < after);
                    assert_eq!(after.before(), Some(key));
                } else {
                    assert_eq!(key, K::MAX);
                }
                assert_eq!(key.before().is_none(), key == K::MIN);
            }
        }
        check::<u32>();
        check::<u64>();
        check::<u128>();
        check::<([u8; 2], u128)>();
        check::<Wide>();
        assert_eq!((*b"aa", u128::MAX).after(), Some((*b"ab", 0)));
        assert_eq!(Ordinal::after(([0xff, 0xff], u128::MAX)), None);
    }

    #[test]
    fn pools_are_sorted_and_large() {
        fn check<K: Ordinal>() {
            for shape in
                [KeyShape::Adjacent, KeyShape::Spread, KeyShape::Random, KeyShape::EqualEnds, KeyShape::Mixed]
            {
                let mut rng = Rng::with_seed(3);
                let pool = KeyPool::<K>::new(&mut rng, shape, 600);
                assert!(pool.keys().is_sorted_by(|a, b| a < b));
                assert!(pool.keys().len() >= 500, "{shape:?}: {}", pool.keys().len());
                let again = KeyPool::<K>::new(&mut Rng::with_seed(3), shape, 600);
                assert_eq!(pool.keys(), again.keys());
            }
        }
        check::<u64>();
        check::<u128>();
        check::<([u8; 2], u128)>();
        check::<Wide>();
    }

    #[test]
    fn equal_ends_tie() {
        let mut rng = Rng::with_seed(5);
        let pool = KeyPool::<u128>::new(&mut rng, KeyShape::EqualEnds, 512);
        let ties = pool.keys().windows(2).filter(|pair| pair[0].prefix() == pair[1].prefix());
        assert!(ties.count() > 100);
    }

    #[test]
    fn hot_keys_are_few() {
        let mut rng = Rng::with_seed(9);
        let pool = KeyPool::<u64>::new(&mut rng, KeyShape::Spread, 1000);
        let drawn: Vec<u64> = (0..10_000).map(|_| pool.pick_hot(&mut rng)).collect();
        let mut counts = std::collections::BTreeMap::new();
        drawn.iter().for_each(|key| *counts.entry(key).or_insert(0) += 1);
        let hot = counts.values().filter(|&&count| count > 50).count();
        assert!((90..=110).contains(&hot), "{hot}");
        let ranges = (0..1000).map(|_| key_range(&mut rng, &pool));
        assert!(ranges.into_iter().all(|(min, max)| min <= max));
    }

    /// The same seed gives the same keys on every machine.
    #[test]
    fn seeds_are_pinned() {
        let mut rng = Rng::with_seed(42);
        let pool = KeyPool::<u64>::new(&mut rng, KeyShape::Random, 3);
        assert_eq!(pool.keys(), [9105053682160394182, 14587678697106979209, 14839644324764355487]);
    }
}
