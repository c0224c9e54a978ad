//! The contract's suite, run on native with a real store and real mounts.

use std::path::Path;
use std::sync::Arc;

use snapshotters_contract::Snapshotter;
use snapshotters_contract::conformance::{Implementation, Opened};
use snapshotters_native::Native;
use storage_content::Store;

struct NativeUnderTest;

impl Implementation for NativeUnderTest {
    fn open(&self, root: &Path) -> Box<dyn Opened> {
        let store = Store::open(root).expect("a store opens over an empty or its own root");
        let native = Native::new(&store).expect("a snapshotter opens over an open store");
        Box::new(Open { store, native })
    }

    fn renames_lower_directories(&self) -> bool {
        true
    }

    fn copies_parents(&self) -> bool {
        true
    }
}

struct Open {
    store: Store,
    native: Native,
}

impl Opened for Open {
    fn bind(&self, namespace: &str) -> Arc<dyn Snapshotter> {
        let namespace = namespace.parse().expect("the suite's namespaces are valid");
        self.native.bind(self.store.space(&namespace))
    }
}

snapshotters_contract::conformance_tests!(NativeUnderTest);
