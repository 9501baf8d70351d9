//! The property that the merge equals the naive model.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::model::{Item, Kind, apply_all};
use super::tests::{merge, merge_lean};

/// Few names, so that everything meets everything.
fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "l"]), 1..4).prop_map(|names| names.join("/"))
}

fn any_target() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => any_path(),
        3 => any_path().prop_map(|path| format!("/{path}")),
        2 => any_path().prop_map(|path| format!("../{path}")),
        1 => prop::sample::select(vec!["/", ".", "..", "../../..", "gone", "/gone/x"]).prop_map(str::to_owned),
    ]
}

fn any_item() -> impl Strategy<Value = Item> {
    let kind = prop_oneof![
        6 => (0_u32..1000).prop_map(|number| Kind::File(format!("content{number}"))),
        4 => Just(Kind::Directory),
        4 => any_target().prop_map(Kind::Symlink),
        4 => any_path().prop_map(Kind::Hard),
        3 => Just(Kind::Whiteout),
        1 => Just(Kind::Opaque),
    ];
    (any_path(), kind, prop::sample::select(vec![0o644, 0o755, 0o4711])).prop_map(|(path, kind, mode)| Item {
        path,
        kind,
        mode,
    })
}

/// A layer; half of them list the directories above each entry, as Docker's do.
fn any_layer() -> impl Strategy<Value = Vec<Item>> {
    (prop::collection::vec(any_item(), 0..7), any::<bool>()).prop_map(|(items, with_parents)| {
        if !with_parents {
            return items;
        }
        let mut listed = BTreeSet::new();
        let mut all = Vec::new();
        for item in items {
            let ends: Vec<usize> = item.path.match_indices('/').map(|(at, _)| at).collect();
            for end in ends {
                let path = item.path[..end].to_owned();
                if listed.insert(path.clone()) {
                    all.push(Item { path, kind: Kind::Directory, mode: 0o750 });
                }
            }
            if !matches!(item.kind, Kind::Whiteout | Kind::Opaque) {
                listed.insert(item.path.clone());
            }
            all.push(item);
        }
        all
    })
}

fn cases() -> u32 {
    let wanted = ProptestConfig::default().cases;
    // 256 is the crate's default: nobody asked for a number.
    if wanted == 256 { 2000 } else { wanted }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn newest_first_equals_oldest_first(mut stack in prop::collection::vec(any_layer(), 1..6)) {
        // An entry that cannot be applied must be refused; without it the rest is compared.
        let expected = loop {
            match apply_all(&stack) {
                Ok(lines) => break lines,
                Err((layer, index)) => {
                    prop_assert!(merge(&stack).is_err(), "must be refused: {stack:#?}");
                    prop_assert!(merge_lean(&stack).is_err(), "must be refused: {stack:#?}");
                    stack[layer].remove(index);
                }
            }
        };
        let merged = merge(&stack);
        prop_assert_eq!(merged.as_ref().map_err(ToString::to_string), Ok(&expected), "{:#?}", stack);
        let lean = merge_lean(&stack);
        prop_assert_eq!(lean.as_ref().map_err(ToString::to_string), Ok(&expected), "lean: {:#?}", stack);
    }
}
