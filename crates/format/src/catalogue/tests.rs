use super::*;
use crate::testing::{placement, trees};

#[test]
fn what_is_encoded_is_decoded() {
    let most = usize_of(capacity(4096));
    assert_eq!((most, capacity(65_536)), (30, 510));
    for count in [0, 1, 2, most] {
        let trees: Vec<TreeDescription> = (1..)
            .take(count)
            .map(|id| TreeDescription {
                id: TreeId::new(id).unwrap(),
                name: TreeName::new(&format!("tree-{id}")).unwrap(),
                ..trees()[0]
            })
            .collect();
        let mut block = vec![0xee; 4096];
        encode(&mut block, &placement(BlockKind::Catalogue), &trees);
        let view = CatalogueView::new(&block).unwrap();
        assert!(view.trees().eq(trees.iter().copied()));
        assert_eq!((view.fingerprint(), usize_of(view.tree_count())), (fingerprint(&trees), count));
    }
}

#[test]
fn the_fingerprint_changes_with_all_that_is_described() {
    fn check(change: impl Fn(&mut TreeDescription)) {
        let mut changed = trees();
        change(&mut changed[1]);
        assert_ne!(fingerprint(&changed), fingerprint(&trees()));
    }
    check(|tree| tree.id = TreeId::new(5).unwrap());
    check(|tree| tree.name = TreeName::new("by_site2").unwrap());
    check(|tree| tree.value_size += 1);
    check(|tree| tree.usage = Usage::General);
    check(|tree| {
        tree.key = KeyDescriptor::new(&[KeyField { offset: 0, size: 8, kind: KeyKind::Uint }], 16).unwrap()
    });
    assert_ne!(fingerprint(&trees()[..1]), fingerprint(&trees()));
}

/// Damage under a good fingerprint.
#[test]
fn errors_say_what_is_wrong() {
    fn check(damage: impl Fn(&mut [CatalogueEntry]), expected: &str) {
        let mut block = vec![0; 4096];
        encode(&mut block, &placement(BlockKind::Catalogue), &trees());
        let (head, body) = block.split_at_mut(HEADER_SIZE);
        let body = &mut body[..2 * ENTRY_SIZE];
        damage(<[CatalogueEntry]>::mut_from_bytes(body).unwrap());
        let metadata = CatalogueMetadata::mut_from_prefix(&mut head[128..]).unwrap().0;
        metadata.fingerprint = Checksum::of(body).get().into();
        let error = CatalogueView::new(&block).unwrap_err();
        assert_eq!(error.to_string(), format!("bytes: {expected}"));
    }
    check(|e| e[0].tree_id = 0.into(), "tree_id is 0, expected at least 1");
    check(|e| e[1].tree_id = 3.into(), "tree_id is 3, expected ids that ascend");
    check(|e| e[1].name = e[0].name, "name is 4, expected names that differ");
    check(|e| e[0].name[2] = b' ', "name is 8, expected 1 to 32 bytes of printable ASCII");
    check(|e| e[0].name[0] = 0, "name is 0, expected 1 to 32 bytes of printable ASCII");
    check(|e| e[0].name[20] = b'x', "name is 120, expected zero");
    check(|e| e[0].usage = 0, "usage is 0, expected general (1) or secondary index (2)");
    check(|e| e[0].value_size = 0.into(), "value_size is 0, expected at least 1");
    check(|e| e[0].value_size = 16_001.into(), "value_size is 16001, expected at most 16000");
    check(|e| e[0].value_size = 15.into(), "key is 2, expected fields inside the value");
    check(|e| e[0].key_field_count = 0, "key_field_count is 0, expected at least 1");
    check(|e| e[0].key_field_count = 5, "key_field_count is 5, expected at most 4");
    check(|e| e[0].key_field_count = 1, "key is 8, expected zero");
    check(|e| e[0].key_field_count = 3, "key kind is 0, expected integer (1) or bytes (2)");
    check(|e| e[0].key.first.kind = 3, "key kind is 3, expected integer (1) or bytes (2)");
    check(
        |e| e[0].key.second.size = 3,
        "key is 2, expected an integer of 1, 2, 4, 8 or 16 bytes, or 1 to 32 bytes",
    );
    check(|e| e[0].key.second.offset = 11.into(), "key is 2, expected fields that do not overlap");
    check(|e| e[0].reserved_options[0] = 1, "reserved_options is 1, expected zero");
    let mut block = vec![0; 4096];
    encode(&mut block, &placement(BlockKind::Catalogue), &trees());
    block[HEADER_SIZE] ^= 1;
    assert_eq!(CatalogueView::new(&block).unwrap_err().field, "fingerprint");
}
