use super::*;
use crate::key::{KeyError, KeyKind};
use crate::testing::{Reading, reading};

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct One {
    body: [u8; 5],
    id: U128,
}
record! { One: "one", key = { id: U128 } }

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Four {
    d: [u8; 9],
    c: U64,
    body: [u8; 3],
    b: U16,
    a: u8,
}
record! { Four: "a-name_of.exactly/thirty-2:bytes", key = { a: u8, b: U16, c: U64, d: [u8; 9], } }

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Three<const N: usize> {
    a: [u8; N],
    b: U32,
    c: U16,
}
record! { Three<7>: "three", key = { c: U16, a: [u8; 7], b: U32 } }

/// The key by type, by descriptor and by tombstone is the same, for any bytes.
fn check<R: Record>() {
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..200 {
        let mut bytes = vec![if round == 0 { 0xff } else { 0 }; size_of::<R>()];
        if round > 1 {
            rng.fill(&mut bytes);
        }
        let record = R::read_from_bytes(&bytes).unwrap();
        let key = record.key();
        assert_eq!(R::KEY.extract(&bytes), key.encode());
        let tombstone = R::tombstone(key);
        assert_eq!(tombstone.key(), key);
        assert_eq!(R::KEY.extract(tombstone.as_bytes()), key.encode());
        for (at, &byte) in tombstone.as_bytes().iter().enumerate() {
            let in_key = R::KEY.fields().iter().any(|field| {
                (usize::from(field.offset)..usize::from(field.offset) + usize::from(field.size)).contains(&at)
            });
            assert!(in_key || byte == 0);
        }
    }
    assert_eq!(R::KEY.key_size(), R::Key::SIZE);
}

#[test]
fn type_descriptor_and_tombstone_agree() {
    check::<One>();
    check::<Four>();
    check::<Three<7>>();
    check::<Reading>();
}

#[test]
fn keys_are_native() {
    assert_eq!(One { body: [1; 5], id: 9.into() }.key(), 9_u128);
    let four = Four { d: *b"ninebytes", c: 3.into(), body: [0; 3], b: 2.into(), a: 1 };
    assert_eq!(four.key(), (1_u8, 2_u16, 3_u64, *b"ninebytes"));
    assert_eq!(reading(7).key(), (*b"west", 7_u32));
    let offsets: Vec<(u16, KeyKind)> =
        Four::KEY.fields().iter().map(|field| (field.offset, field.kind)).collect();
    assert_eq!(offsets, [(22, KeyKind::Uint), (20, KeyKind::Uint), (9, KeyKind::Uint), (0, KeyKind::Bytes)]);
}

#[test]
fn names() {
    let check = |name: &str, expected: bool| assert_eq!(is_name(name.as_bytes()), expected, "{name:?}");
    check("flights", true);
    check("a-name_of.exactly/thirty-2:bytes", true);
    check("a-name_of.exactly/thirty-3.bytes!", false);
    check("", false);
    check("two words", false);
    check("line\n", false);
    check("umlaut \u{fc}", false);
    assert_eq!(KeyError::KeySize.to_string(), "a key has at most 32 bytes");
}
