//! Images and containers: names and records.

use storage_content::{ContainerRecord, ErrorKind, Extension, ImageRecord};
use storage_model::{Digest, Labels};

use crate::support::{Fixture, descriptor, labels};

fn image(name: &str, content: &[u8]) -> ImageRecord {
    ImageRecord::new(name, descriptor(Digest::of(content)), Labels::new())
}

#[test]
fn a_name_is_created_once_replaced_at_will_and_keeps_its_birth() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let born = space.create_image(image("a:1", b"x")).unwrap().created;
    assert_eq!(space.create_image(image("a:1", b"y")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let after = space.put_image(image("a:1", b"y")).unwrap();
    assert_eq!((after.created, after.target.digest), (born, Digest::of(b"y")));
    assert!(after.updated > born);
    assert_eq!(space.image("a:1").unwrap(), after);
    assert_eq!(space.images().unwrap(), [after]);
    assert!(fixture.store.space(&"other".parse().unwrap()).images().unwrap().is_empty());
}

#[test]
fn an_update_changes_what_it_likes_but_not_name_and_birth() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let before = space.create_image(image("a", b"x")).unwrap();
    let after = space
        .update_image("a", |image| {
            image.name = "b".to_owned();
            image.created = std::time::SystemTime::UNIX_EPOCH;
            image.labels = labels(&[("k", "v")]);
            Ok(())
        })
        .unwrap();
    assert_eq!((after.name.as_str(), after.created), ("a", before.created));
    assert_eq!(space.image("a").unwrap().labels, labels(&[("k", "v")]));
    assert_eq!(space.update_image("b", |_| Ok(())).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_deletion_that_names_a_target_spares_an_image_that_moved_on() {
    let fixture = Fixture::new();
    let space = fixture.space();
    space.create_image(image("a", b"new")).unwrap();
    let error = space.delete_image_if("a", Some(&Digest::of(b"old"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    space.delete_image_if("a", Some(&Digest::of(b"new"))).unwrap();
    assert_eq!(space.delete_image("a").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(space.image("").unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_container_comes_back_to_the_byte_and_does_not_show_its_spec_in_logs() {
    let fixture = Fixture::new();
    let space = fixture.space();
    let now = std::time::SystemTime::now();
    let extension = Extension { type_url: "any".into(), value: vec![0, 159, 146, 150] };
    let record = ContainerRecord {
        id: "c1".parse().unwrap(),
        image: "a".into(),
        snapshotter: "overlayfs".into(),
        snapshot_key: "c1".into(),
        runtime: "runc".into(),
        spec: br#"{"process":{"env":["SECRET=1"]}}"#.to_vec(),
        labels: Labels::new(),
        extensions: [("e".to_owned(), extension)].into(),
        created: now,
        updated: now,
    };
    let created = space.create_container(record.clone()).unwrap();
    assert_eq!(space.create_container(record.clone()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(space.put_container(record.clone()).unwrap().created, created.created);
    let fixture = fixture.reopened_without(space);
    let found = fixture.space().container(&record.id).unwrap();
    assert_eq!((&found.spec, &found.extensions), (&record.spec, &record.extensions));
    assert!(!format!("{found:?}").contains("SECRET"));
    fixture.space().delete_container(&record.id).unwrap();
    assert!(fixture.space().containers().unwrap().is_empty());
}

impl Fixture {
    fn reopened_without(self, space: storage_content::Space) -> Self {
        drop(space);
        self.reopened(|_| ())
    }
}
