use core::cmp::Ordering;

use super::*;
use crate::usize_of;

/// Values near the ends, near powers of two, and anywhere.
fn numbers(rng: &mut fastrand::Rng, bits: u32) -> Vec<u128> {
    let max = u128::MAX >> (128 - bits);
    let powers = (0..bits).flat_map(|bit| {
        let power = 1_u128 << bit;
        [power - 1, power, power + 1]
    });
    let ends = [0, 1, max - 1, max];
    let mut all: Vec<u128> = powers.chain(ends).map(|number| number.min(max)).collect();
    all.extend((0..40).map(|_| rng.u128(..) & max));
    all
}

fn descriptor(parts: &[(u8, KeyKind)]) -> KeyDescriptor {
    let mut offset = 0;
    let fields: Vec<KeyField> = parts
        .iter()
        .map(|&(size, kind)| {
            let field = KeyField { offset, size, kind };
            offset += u16::from(size);
            field
        })
        .collect();
    KeyDescriptor::new(&fields, 64).unwrap()
}

/// Encoding, prefix, descriptor and order of all pairs of these keys.
fn check<K: Key>(keys: &[K], parts: &[(u8, KeyKind)]) {
    let descriptor = descriptor(parts);
    assert_eq!(descriptor.key_size(), K::SIZE);
    for &a in keys {
        let bytes = a.encode();
        assert_eq!(K::decode(bytes.key(K::SIZE)), a);
        assert_eq!(K::decode(&bytes.0), a);
        assert!(bytes.0[K::SIZE..].iter().all(|&byte| byte == 0));
        assert_eq!(descriptor.extract(&[bytes.0, [7; 32]].concat()), bytes);
        assert!(K::MIN <= a && a <= K::MAX);
        assert_eq!(a.hash(), descriptor.hash(bytes.key(K::SIZE)));
        for &b in keys {
            let other = b.encode();
            assert_eq!(descriptor.compare(&bytes.0, &other.0), a.cmp(&b), "{a:?} {b:?}");
            let prefixes = a.prefix().cmp(&b.prefix());
            assert!(prefixes == a.cmp(&b) || prefixes == Ordering::Equal, "{a:?} {b:?}");
        }
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let hashes: std::collections::BTreeSet<u64> = sorted.iter().map(|key| key.hash()).collect();
    assert_eq!(hashes.len(), sorted.len());
}

fn cut<const N: usize>(number: u128) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().rev().zip(number.to_le_bytes()) {
        *to = from;
    }
    bytes
}

#[test]
fn integers_and_bytes_agree_with_their_descriptor() {
    use KeyKind::{Bytes, Uint};
    let mut rng = fastrand::Rng::with_seed(1);
    let all = numbers(&mut rng, 128);
    let narrow = |bits| numbers(&mut fastrand::Rng::with_seed(2), bits);
    check(&narrow(8).iter().map(|&n| u8::try_from(n).unwrap()).collect::<Vec<_>>(), &[(1, Uint)]);
    check(&narrow(16).iter().map(|&n| u16::try_from(n).unwrap()).collect::<Vec<_>>(), &[(2, Uint)]);
    check(&narrow(32).iter().map(|&n| u32::try_from(n).unwrap()).collect::<Vec<_>>(), &[(4, Uint)]);
    check(&narrow(64).iter().map(|&n| u64::try_from(n).unwrap()).collect::<Vec<_>>(), &[(8, Uint)]);
    check(&all, &[(16, Uint)]);
    check(&narrow(8).iter().map(|&n| cut::<1>(n)).collect::<Vec<_>>(), &[(1, Bytes)]);
    check(&narrow(40).iter().map(|&n| cut::<5>(n)).collect::<Vec<_>>(), &[(5, Bytes)]);
    check(&all.iter().map(|&n| cut::<9>(n)).collect::<Vec<_>>(), &[(9, Bytes)]);
    check(&all.iter().map(|&n| cut::<32>(n)).collect::<Vec<_>>(), &[(32, Bytes)]);
}

/// Tuples that share parts: ties at every place, and near misses behind them.
#[test]
fn tuples_agree_with_their_descriptor() {
    use KeyKind::{Bytes, Uint};
    const N: u64 = u64::MAX;
    let small = [0, 1, 255, 256, 65_535];
    let mut rng = fastrand::Rng::with_seed(3);
    let mut row = |count: usize| -> Vec<u64> { (0..count).map(|_| rng.choice(small).unwrap()).collect() };
    let pairs: Vec<Vec<u64>> = (0..300).map(|_| row(2)).collect();
    check(&pairs.iter().map(|n| (low32(n[0]), N - n[1])).collect::<Vec<_>>(), &[(4, Uint), (8, Uint)]);
    let fours: Vec<Vec<u64>> = (0..300).map(|_| row(4)).collect();
    let keys: Vec<_> = fours.iter().map(|n| (cut::<2>(n[0].into()), u128::from(n[1]) << 120 | 7)).collect();
    check(&keys, &[(2, Bytes), (16, Uint)]);
    let keys: Vec<_> =
        fours.iter().map(|n| (cut::<3>(n[0].into()), low32(n[1]), cut::<9>(n[2].into()))).collect();
    check(&keys, &[(3, Bytes), (4, Uint), (9, Bytes)]);
    let keys: Vec<_> =
        fours.iter().map(|n| (cut::<4>(n[0].into()), low32(n[1]), n[2] << 48, u128::from(n[3]))).collect();
    check(&keys, &[(4, Bytes), (4, Uint), (8, Uint), (16, Uint)]);
    check(&fours.iter().map(|n| (n[0],)).collect::<Vec<_>>(), &[(8, Uint)]);
}

fn low32(number: u64) -> u32 {
    u32::try_from(number).unwrap()
}

#[test]
fn prefixes_take_what_fits() {
    fn check(key: impl Key, expected: u64) {
        assert_eq!(key.prefix(), expected, "{key:?}");
    }
    check(0x12_u8, 0x12 << 56);
    check(u128::MAX, u64::MAX);
    check((1_u32, 0x0203_0405_0607_0809_u64), 0x0000_0001_0203_0405);
    check((*b"AB", 1_u128 << 80), 0x4142_0000_0000_0001);
    check((*b"AB", 1_u128 << 79), 0x4142_0000_0000_0000);
    check((1_u8, 2_u8, 3_u8, 4_u8), 0x0102_0304_0000_0000);
    check((1_u64, 2_u64), 1);
    check(*b"abcdefghij", 0x6162_6364_6566_6768);
}

/// The hash is part of the format.
#[test]
fn hashes_are_pinned() {
    let found = [7_u64.hash(), 7_u128.hash(), (*b"AA", 7_u128).hash(), Key::hash([9_u8; 32])];
    let expected = [9324454920402081455, 5175499747093961662, 17585002215096074906, 17844702360922026582];
    assert_eq!(found, expected);
}

#[test]
fn descriptors_refuse_what_is_no_key() {
    fn check(fields: &[(u16, u8, KeyKind)], expected: KeyError) {
        let fields: Vec<KeyField> =
            fields.iter().map(|&(offset, size, kind)| KeyField { offset, size, kind }).collect();
        assert_eq!(KeyDescriptor::new(&fields, 64), Err(expected));
    }
    use KeyKind::{Bytes, Uint};
    check(&[], KeyError::FieldCount);
    check(&[(0, 1, Uint), (1, 1, Uint), (2, 1, Uint), (3, 1, Uint), (4, 1, Uint)], KeyError::FieldCount);
    check(&[(0, 3, Uint)], KeyError::FieldSize);
    check(&[(0, 0, Bytes)], KeyError::FieldSize);
    check(&[(0, 33, Bytes)], KeyError::FieldSize);
    check(&[(0, 32, Bytes), (32, 1, Uint)], KeyError::KeySize);
    check(&[(57, 8, Uint)], KeyError::FieldOffset);
    check(&[(65_535, 16, Uint)], KeyError::FieldOffset);
    check(&[(0, 8, Uint), (7, 1, Uint)], KeyError::FieldOverlap);
    check(&[(7, 1, Uint), (0, 8, Uint)], KeyError::FieldOverlap);
    let adjacent =
        [KeyField { offset: 56, size: 8, kind: Uint }, KeyField { offset: 48, size: 8, kind: Bytes }];
    let descriptor = KeyDescriptor::new(&adjacent, 64).unwrap();
    assert_eq!((descriptor.fields(), descriptor.key_size()), (&adjacent[..], usize_of(16)));
}
