//! The contract's suite, run on overlay with a real store and real mounts.

use std::path::Path;
use std::sync::Arc;

use snapshotters_contract::Snapshotter;
use snapshotters_contract::conformance::{Implementation, Opened};
use snapshotters_overlay::Overlay;
use storage_content::Store;

struct OverlayUnderTest;

impl Implementation for OverlayUnderTest {
    fn open(&self, root: &Path) -> Box<dyn Opened> {
        let store = Store::open(root).expect("a store opens over an empty or its own root");
        let overlay = Overlay::new(&store).expect("a snapshotter opens over an open store");
        Box::new(Open { store, overlay })
    }

    fn renames_lower_directories(&self) -> bool {
        false
    }
}

struct Open {
    store: Store,
    overlay: Overlay,
}

impl Opened for Open {
    fn bind(&self, namespace: &str) -> Arc<dyn Snapshotter> {
        let namespace = namespace.parse().expect("the suite's namespaces are valid");
        self.overlay.bind(self.store.space(&namespace))
    }
}

snapshotters_contract::conformance_tests!(OverlayUnderTest);
