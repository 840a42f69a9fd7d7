use super::*;
use crate::testing::{assert_expectation, fixture};

#[test]
fn bytes_as_text() {
    let check = |bytes: &[u8], expected: &str| assert_eq!(hex(bytes), expected);
    check(&[], "");
    check(&[0, 0, 0], "00 00 00");
    check(&[0, 0, 0, 0], "00*4");
    check(&[1, 0, 0xff, 0, 0, 0, 0, 0, 2], "01 00 ff 00*5 02");
    assert_eq!(number(&[0x2c, 1]), "300");
    assert_eq!(number(&[0xff; 16]), "");
    assert_eq!(text(b"flights\0\0"), "\"flights\"");
    assert_eq!(text(b"\0flights"), "");
    assert_eq!(text(b"flights\0x"), "");
}

/// A changed field is one changed line.
#[test]
fn one_field_is_one_line() {
    let fixture = fixture(BlockKind::Index);
    let before = dump_block(&fixture.block);
    let mut block = fixture.block;
    block[56] = 0x2c;
    let after = dump_block(&block);
    let changed: Vec<(&str, &str)> = before.lines().zip(after.lines()).filter(|(a, b)| a != b).collect();
    let [(a, b)] = changed[..] else { panic!("{changed:?}") };
    assert_eq!(a, "0038 +2    tree_id                              03 00  3");
    assert_eq!(b, "0038 +2    tree_id                              2c 00  44");
}

#[test]
fn layouts_have_names_of_their_own_and_cover_nested_ones() {
    let names: std::collections::BTreeSet<&str> = layouts().iter().map(|layout| layout.name).collect();
    assert_eq!(names.len(), layouts().len());
    for layout in layouts() {
        for field in layout.fields {
            assert!(!field.doc.trim().is_empty());
            if let FieldKind::Struct(nested) = field.kind {
                assert!(names.contains(nested.name), "{}", nested.name);
            }
        }
    }
}

#[test]
fn pages() {
    assert_expectation("markdown-twin-ref", &markdown(&TwinRefWire::LAYOUT));
    let documents = documents();
    let (_, computed) = documents.iter().find(|(name, _)| name == "computed.md").unwrap();
    assert_expectation("markdown-computed", computed);
    assert_eq!(documents.len(), layouts().len() + 2);
    assert!(documents.iter().all(|(_, text)| text.is_ascii() && text.ends_with('\n')));
}
