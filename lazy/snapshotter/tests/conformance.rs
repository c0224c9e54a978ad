//! The contract's suite, run on the lazy snapshotter: what is prepared, written and committed in it is ordinary.

use std::path::Path;
use std::sync::Arc;

use lazy_snapshotter::{Lazy, Places};
use snapshotters_contract::Snapshotter;
use snapshotters_contract::conformance::{Implementation, Opened};
use storage_content::Store;

struct LazyUnderTest;

impl Implementation for LazyUnderTest {
    fn open(&self, root: &Path) -> Box<dyn Opened> {
        let store = Store::open(root).expect("a store opens over an empty or its own root");
        // Nothing of the suite is shown lazily, so no server is started.
        let places =
            Places { root: root.to_owned(), state: root.join("state"), program: "/bin/false".into() };
        let lazy = Lazy::open(&store, places).expect("a snapshotter opens over an open store");
        Box::new(Open { store, lazy })
    }

    fn renames_lower_directories(&self) -> bool {
        false
    }
}

struct Open {
    store: Store,
    lazy: Lazy,
}

impl Opened for Open {
    fn bind(&self, namespace: &str) -> Arc<dyn Snapshotter> {
        let namespace = namespace.parse().expect("the suite's namespaces are valid");
        self.lazy.bind(self.store.space(&namespace))
    }
}

snapshotters_contract::conformance_tests!(LazyUnderTest);
