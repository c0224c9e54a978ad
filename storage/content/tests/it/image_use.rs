//! Uses of images: what may go first when room is needed.

use std::time::{Duration, SystemTime};

use storage_content::{ImageRecord, Resource, Store};
use storage_model::Labels;

use crate::support::{Fixture, container, descriptor, labels, put};

fn idle(store: &Store) -> Vec<String> {
    store.least_used_images().unwrap().into_iter().map(|one| one.image.name).collect()
}

#[test]
fn the_image_used_longest_ago_comes_first_and_one_never_used_counts_from_its_making() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let target = descriptor(put(&space, b"target"));
    for name in ["a", "b", "c"] {
        space.create_image(ImageRecord::new(name, target.clone(), Labels::new())).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(idle(&fixture.store), ["a", "b", "c"]);
    let before = SystemTime::now();
    space.mark_image_used("a").unwrap();
    assert_eq!(idle(&fixture.store), ["b", "c", "a"]);
    let image = space.image("a").unwrap();
    assert!(image.used.is_some_and(|used| used >= before));
    assert!(image.updated < before, "a use is no change");
    space.mark_image_used("never there").unwrap();
}

#[test]
fn a_use_outlives_a_change_of_the_image_and_a_restart() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let image = ImageRecord::new("a", descriptor(put(&space, b"target")), Labels::new());
    space.put_image(image.clone()).unwrap();
    space.mark_image_used("a").unwrap();
    let used = space.image("a").unwrap().used;
    space.put_image(image).unwrap();
    space
        .update_image("a", |image| {
            image.used = None;
            Ok(())
        })
        .unwrap();
    drop(space);
    let fixture = fixture.reopened(|_| ());
    assert_eq!(fixture.space().image("a").unwrap().used, used);
}

#[test]
fn pinned_images_and_those_of_a_container_or_a_lease_are_left_out() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let put_image = |name: &str, labels| {
        let target = descriptor(put(&space, name.as_bytes()));
        space.create_image(ImageRecord::new(name, target, labels)).unwrap()
    };
    put_image("free", labels(&[("windlass.io/pinned", "false")]));
    put_image("ours", labels(&[("windlass.io/pinned", "")]));
    put_image("kubelets", labels(&[("io.cri-containerd.pinned", "pinned")]));
    put_image("runs", Labels::new());
    put_image("leased", Labels::new());
    let target = put_image("target-leased", Labels::new()).target.digest;
    space
        .put_container(storage_content::ContainerRecord { image: "runs".into(), ..container("c", "") })
        .unwrap();
    let lease = space.create_lease(None, Labels::new()).unwrap();
    space.add_resource(&lease.id, &Resource::image("leased")).unwrap();
    space.add_resource(&lease.id, &Resource::content(&target)).unwrap();
    assert_eq!(idle(&fixture.store), ["free"]);
    space.delete_lease(&lease.id).unwrap();
    assert_eq!(idle(&fixture.store), ["free", "leased", "target-leased"]);
}
