//! The table of snapshots against a map that does the same in the plainest way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use proptest::prelude::*;
use storage_content::{ErrorKind, LabelChange, NewSnapshot, SnapshotKind, SnapshotTable, Usage};
use storage_model::{Labels, ProtectionDomain};

use crate::support::{Fixture, labels};

/// Few names, so that most operations meet another's.
const NAMES: [&str; 5] = ["a", "b c/d", "sha256:e", "protected:f", "a\u{1}"];

#[derive(Debug, Clone)]
enum Operation {
    Insert { view: bool, key: usize, parent: Option<usize> },
    Commit { key: usize, name: usize, rebase: Option<usize> },
    Remove { key: usize },
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    kind: SnapshotKind,
    parent: Option<&'static str>,
}

/// The model: containerd's rules as they are written down in its interface.
#[derive(Default)]
struct Model(BTreeMap<&'static str, Entry>);

impl Model {
    fn apply(&mut self, operation: &Operation) -> Result<(), ErrorKind> {
        match *operation {
            Operation::Insert { view, key, parent } => {
                if self.0.contains_key(NAMES[key]) {
                    return Err(ErrorKind::AlreadyExists);
                }
                self.committed(parent, ErrorKind::InvalidArgument)?;
                let kind = if view { SnapshotKind::View } else { SnapshotKind::Active };
                self.0.insert(NAMES[key], Entry { kind, parent: parent.map(|parent| NAMES[parent]) });
            }
            Operation::Commit { key, name, rebase } => {
                if self.0.contains_key(NAMES[name]) {
                    return Err(ErrorKind::AlreadyExists);
                }
                let before = self.0.get(NAMES[key]).cloned().ok_or(ErrorKind::NotFound)?;
                if before.kind != SnapshotKind::Active {
                    return Err(ErrorKind::FailedPrecondition);
                }
                let wanted = rebase.map(|rebase| NAMES[rebase]);
                if wanted.is_some() && before.parent.is_some() && wanted != before.parent {
                    return Err(ErrorKind::InvalidArgument);
                }
                self.committed(rebase, ErrorKind::FailedPrecondition)?;
                self.0.remove(NAMES[key]);
                let parent = wanted.or(before.parent);
                self.0.insert(NAMES[name], Entry { kind: SnapshotKind::Committed, parent });
            }
            Operation::Remove { key } => {
                if !self.0.contains_key(NAMES[key]) {
                    return Err(ErrorKind::NotFound);
                }
                if !self.children(NAMES[key]).is_empty() {
                    return Err(ErrorKind::FailedPrecondition);
                }
                self.0.remove(NAMES[key]);
            }
        }
        Ok(())
    }

    fn committed(&self, parent: Option<usize>, otherwise: ErrorKind) -> Result<(), ErrorKind> {
        let Some(parent) = parent else { return Ok(()) };
        match self.0.get(NAMES[parent]).ok_or(ErrorKind::NotFound)?.kind {
            SnapshotKind::Committed => Ok(()),
            _ => Err(otherwise),
        }
    }

    fn children(&self, key: &str) -> Vec<&'static str> {
        self.0.iter().filter(|(_, entry)| entry.parent == Some(key)).map(|(name, _)| *name).collect()
    }

    fn lineage(&self, key: &'static str) -> Vec<&'static str> {
        let mut chain = vec![key];
        while let Some(parent) = self.0[chain[0]].parent {
            chain.insert(0, parent);
        }
        chain
    }
}

fn apply(table: &SnapshotTable, operation: &Operation) -> Result<(), ErrorKind> {
    let name = |at: Option<usize>| at.map(|at| NAMES[at]);
    let outcome = match *operation {
        Operation::Insert { view, key, parent } => {
            let kind = if view { NewSnapshot::View } else { NewSnapshot::Active };
            table.insert(kind, NAMES[key], name(parent), Labels::new())
        }
        Operation::Commit { key, name: to, rebase } => {
            table.commit(NAMES[key], NAMES[to], name(rebase), Usage::default(), Labels::new())
        }
        Operation::Remove { key } => table.remove(NAMES[key]),
    };
    outcome.map(|_| ()).map_err(|error| error.kind())
}

fn compare(table: &SnapshotTable, model: &Model) -> BTreeSet<u64> {
    let mut found = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    table
        .walk(&mut |record| {
            assert_eq!(table.get(&record.key).unwrap(), record, "a look-up inside a walk agrees with it");
            assert_eq!(record.usage.is_some(), record.kind == SnapshotKind::Committed);
            assert!(numbers.insert(record.number), "number {} twice", record.number);
            found.insert(record.key, (record.kind, record.parent));
            ControlFlow::Continue(())
        })
        .unwrap();
    let expected: BTreeMap<String, (SnapshotKind, Option<String>)> = model
        .0
        .iter()
        .map(|(key, entry)| ((*key).to_owned(), (entry.kind, entry.parent.map(str::to_owned))))
        .collect();
    assert_eq!(found, expected);
    for key in model.0.keys() {
        assert_eq!(table.children(key).unwrap(), model.children(key));
        let lineage: Vec<String> = table.lineage(key).unwrap().into_iter().map(|record| record.key).collect();
        assert_eq!(lineage, model.lineage(key));
    }
    numbers
}

fn operation() -> impl Strategy<Value = Operation> {
    let name = 0..NAMES.len();
    let some = proptest::option::weighted(0.6, 0..NAMES.len());
    prop_oneof![
        3 => (any::<bool>(), name.clone(), some.clone())
            .prop_map(|(view, key, parent)| Operation::Insert { view: view && key % 2 == 0, key, parent }),
        3 => (name.clone(), name.clone(), proptest::option::weighted(0.3, 0..NAMES.len()))
            .prop_map(|(key, name, rebase)| Operation::Commit { key, name, rebase }),
        1 => name.prop_map(|key| Operation::Remove { key }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_table_answers_and_holds_what_a_plain_map_does(
        operations in proptest::collection::vec(operation(), 1..60),
        reopen_at in 0_usize..60,
    ) {
        let mut fixture = Fixture::new();
        let mut model = Model::default();
        let mut used = BTreeSet::new();
        for (at, operation) in operations.iter().enumerate() {
            if at == reopen_at {
                fixture = fixture.reopened(|_| ());
            }
            let table = fixture.space().snapshots("overlayfs");
            let numbers_before = fixture.store.snapshot_numbers().unwrap();
            prop_assert_eq!(apply(&table, operation), model.apply(operation), "{:?}", operation);
            let numbers = compare(&table, &model);
            prop_assert_eq!(&fixture.store.snapshot_numbers().unwrap(), &numbers);
            for number in numbers.difference(&numbers_before) {
                prop_assert!(used.insert(*number), "number {} was given before", number);
            }
        }
    }
}

#[test]
fn vuln_c15_snapshotters_and_namespaces_do_not_see_each_other_but_share_numbers() {
    let fixture = Fixture::new();
    let other = fixture.store.space(&"other".parse().unwrap());
    let tables = [
        fixture.space().snapshots("overlayfs"),
        fixture.space().snapshots("native"),
        other.snapshots("overlayfs"),
    ];
    let numbers: BTreeSet<u64> = tables
        .iter()
        .map(|table| table.insert(NewSnapshot::Active, "k", None, Labels::new()).unwrap().number)
        .collect();
    assert_eq!(numbers.len(), 3);
    tables[0].remove("k").unwrap();
    tables[1].get("k").unwrap();
    tables[2].get("k").unwrap();
    assert_eq!(fixture.store.snapshot_numbers().unwrap().len(), 2);
}

#[test]
fn a_removal_with_children_says_remove_and_names_one() {
    let fixture = Fixture::new();
    let table = fixture.space().snapshots("overlayfs");
    table.insert(NewSnapshot::Active, "a", None, Labels::new()).unwrap();
    table.commit("a", "base", None, Usage { bytes: 7, inodes: 2 }, Labels::new()).unwrap();
    table.insert(NewSnapshot::View, "child", Some("base"), Labels::new()).unwrap();
    let error = table.remove("base").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("remove") && error.to_string().contains("child"), "{error}");
    assert_eq!(table.get("base").unwrap().usage, Some(Usage { bytes: 7, inodes: 2 }));
}

#[test]
fn a_commit_takes_its_own_labels_alone_and_times_move_as_they_should() {
    let fixture = Fixture::new();
    let table = fixture.space().snapshots("overlayfs");
    let before = table.insert(NewSnapshot::Active, "a", None, labels(&[("draft", "1")])).unwrap();
    assert_eq!(before.created, before.updated);
    let after = table.commit("a", "b", None, Usage::default(), labels(&[("final", "1")])).unwrap();
    assert_eq!((after.number, &after.labels), (before.number, &labels(&[("final", "1")])));
    let updated = table.update_labels("b", LabelChange::set("x", "y")).unwrap();
    assert!(updated.updated > after.updated && updated.created == after.created);
}

#[test]
fn a_plain_name_never_reaches_a_protected_snapshot() {
    let fixture = Fixture::new();
    let table = fixture.space().snapshots("overlayfs");
    let chain = storage_model::ChainId(storage_model::Digest::of(b"layer"));
    let domain = ProtectionDomain::Protected(storage_model::Digest::of(b"key"));
    table.insert(NewSnapshot::Active, "a", None, Labels::new()).unwrap();
    table.commit("a", &domain.snapshot_name(&chain), None, Usage::default(), Labels::new()).unwrap();
    assert!(table.get(&ProtectionDomain::Plain.snapshot_name(&chain)).is_err());
    table.get(&domain.snapshot_name(&chain)).unwrap();
}
