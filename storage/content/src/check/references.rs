//! Does what is referred to exist: what images point to, what snapshots stand on, what containers have as root.
//!
//! An image needs not be here for every platform: of an index one manifest must be here. Of a manifest, everything must
//! that its blob's `containerd.io/gc.ref.content` labels name: that was here. What no label names was never fetched
//! (layers that may not be distributed) or was let go on purpose (`content prune`).

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::ops::ControlFlow;

use storage_model::{Descriptor, Digest, Document, Labels, Namespace, limits, media};

use super::{CheckPhase, Finding, Pass, Problem, Suspect};
use crate::container::ContainerRecord;
use crate::image::ImageRecord;
use crate::metadata::{Table, key};
use crate::snapshot::{self, SnapshotKind, SnapshotRecord};
use crate::thing::Thing;
use crate::{BlobInfo, Space, StoreError};

/// Which images need which blobs.
#[derive(Default)]
pub(super) struct Needs {
    images: Vec<(Namespace, String)>,
    /// Places in `images`.
    by_blob: HashMap<Digest, Vec<usize>>,
    documents: HashSet<Digest>,
}

impl Needs {
    fn add(&mut self, digest: Digest, image: usize, is_document: bool) {
        self.by_blob.entry(digest).or_default().push(image);
        if is_document {
            self.documents.insert(digest);
        }
    }

    /// Whether a blob is a manifest or an index of an image.
    pub(super) fn is_document(&self, digest: &Digest) -> bool {
        self.documents.contains(digest)
    }

    /// Images that need a blob.
    pub(super) fn of(&self, digest: &Digest) -> Vec<(Namespace, String)> {
        let places = self.by_blob.get(digest).into_iter().flatten();
        places.map(|place| self.images[*place].clone()).collect()
    }
}

/// Images looked for, of a snapshot that is damaged, in one check: each look reads every record.
const OWNERS_SOUGHT_MAX: u64 = 100;

impl Pass<'_> {
    pub(super) fn check_references(&mut self) {
        let mut images = Vec::new();
        // What cannot be read is a finding of the records.
        let metadata = &self.store.0.metadata;
        let _ = metadata.walk_readable(&[], |row, image: ImageRecord| {
            images.extend(key::split_namespace(row).map(|(namespace, _)| (namespace, image)));
            ControlFlow::Continue(())
        });
        for (namespace, image) in images {
            if self.stopped() {
                return;
            }
            self.check_image(&self.store.space(&namespace), &image);
        }
        self.check_parents();
        self.check_roots();
        self.progress(CheckPhase::References, 0, 0);
    }

    fn check_image(&mut self, space: &Space, image: &ImageRecord) {
        self.needs.images.push((space.namespace.clone(), image.name.clone()));
        self.summary.objects += 1;
        let problems = Walk::new(self, space).problems(image);
        let now = space.image(&image.name);
        if now.is_ok_and(|now| now.target.digest == image.target.digest) {
            for problem in problems {
                self.found(Finding {
                    suspect: Suspect::Thing(Thing::Image(image.name.clone())),
                    namespaces: vec![space.namespace.clone()],
                    problem,
                    images: vec![(space.namespace.clone(), image.name.clone())],
                });
            }
        }
    }

    fn check_parents(&mut self) {
        let mut suspects = Vec::new();
        let metadata = &self.store.0.metadata;
        let mut objects = 0;
        let _ = snapshot::walk_readable(metadata, |namespace, snapshotter, record| {
            objects += 1;
            let table = self.store.space(&namespace).snapshots(snapshotter);
            if parent_problem(&table, &record).is_some() {
                suspects.push((namespace, snapshotter.to_owned(), record.key));
            }
            ControlFlow::Continue(())
        });
        self.summary.objects += objects;
        for (namespace, snapshotter, key) in suspects {
            let table = self.store.space(&namespace).snapshots(&snapshotter);
            let problem = table.get(&key).ok().and_then(|record| parent_problem(&table, &record));
            if let Some(problem) = problem {
                let thing = Thing::snapshot(snapshotter, key);
                let images = self.owners(&namespace, &thing);
                let suspect = Suspect::Thing(thing);
                self.found(Finding { suspect, namespaces: vec![namespace], problem, images });
            }
        }
    }

    /// Images that keep a snapshot.
    fn owners(&self, namespace: &Namespace, thing: &Thing) -> Vec<(Namespace, String)> {
        if self.summary.damaged > OWNERS_SOUGHT_MAX {
            return Vec::new();
        }
        let chains = self.store.space(namespace).why(thing).unwrap_or_default();
        let names = chains.into_iter().filter_map(|chain| match chain.links.into_iter().next() {
            Some(Thing::Image(name)) => Some((namespace.clone(), name)),
            _ => None,
        });
        names.collect()
    }

    fn check_roots(&mut self) {
        let mut containers = Vec::new();
        let _ = self.store.0.metadata.walk_readable(&[], |row, record: ContainerRecord| {
            containers.extend(key::split_namespace(row).map(|(namespace, _)| (namespace, record)));
            ControlFlow::Continue(())
        });
        for (namespace, record) in containers {
            self.summary.objects += 1;
            let space = self.store.space(&namespace);
            let (snapshotter, key) = (record.snapshotter.clone(), record.snapshot_key.clone());
            let gone = |error: StoreError| error.is_not_found();
            if key.is_empty()
                || !space.snapshots(&snapshotter).get(&key).is_err_and(gone)
                || space.container(&record.id).is_err_and(gone)
            {
                continue;
            }
            let suspect = Suspect::Thing(Thing::Container(record.id.to_string()));
            let problem = Problem::RootGone { snapshotter, key };
            self.found(Finding { suspect, namespaces: vec![namespace], problem, images: Vec::new() });
        }
    }
}

/// What is wrong with what a snapshot stands on.
fn parent_problem(table: &crate::SnapshotTable, record: &SnapshotRecord) -> Option<Problem> {
    let parent = record.parent.clone()?;
    match table.get(&parent) {
        Ok(found) if found.kind == SnapshotKind::Committed => None,
        Ok(found) => Some(Problem::ParentNotCommitted { parent, kind: found.kind }),
        Err(error) if error.is_not_found() => Some(Problem::ParentGone { parent }),
        Err(_) => None, // a finding of the records
    }
}

/// A walk through the documents of one image.
struct Walk<'a, 'b> {
    pass: &'a mut Pass<'b>,
    space: &'a Space,
    /// Place of the image in `Needs::images`.
    place: usize,
    seen: HashSet<Digest>,
    problems: Vec<Problem>,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(pass: &'a mut Pass<'b>, space: &'a Space) -> Self {
        let place = pass.needs.images.len() - 1;
        Self { pass, space, place, seen: HashSet::new(), problems: Vec::new() }
    }

    fn problems(mut self, image: &ImageRecord) -> Vec<Problem> {
        let missing = image.target.digest;
        if !self.has(&missing) {
            return vec![Problem::ContentGone { missing, parent: missing }];
        }
        let mut open = vec![image.target.clone()];
        while let Some(descriptor) = open.pop() {
            if !self.seen.insert(descriptor.digest) {
                continue;
            }
            let is_document =
                media::is_index(&descriptor.media_type) || media::is_manifest(&descriptor.media_type);
            self.pass.needs.add(descriptor.digest, self.place, is_document);
            self.pass.summary.objects += 1;
            if is_document && let Some(document) = self.document(&descriptor) {
                open.extend(self.children(&descriptor.digest, &document));
            }
        }
        self.problems
    }

    /// Whether the namespace has a blob; what cannot be read counts as there, and is a finding of the records.
    fn has(&self, digest: &Digest) -> bool {
        let blob_key = key::blob(&self.space.namespace, digest);
        self.space.store.0.metadata.contains(Table::Blobs, &blob_key).unwrap_or(true)
    }

    /// The document, if it can be read and is what it should be. A file that is gone is a finding of the blobs.
    fn document(&mut self, descriptor: &Descriptor) -> Option<Document> {
        let file = self.space.open_blob(&descriptor.digest).ok()?;
        let mut bytes = Vec::new();
        file.take(limits::MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 <= limits::MANIFEST_BYTES_MAX && Digest::of(&bytes) != descriptor.digest {
            return None; // a finding of the blobs, which hash this one too
        }
        match Document::parse(&descriptor.media_type, &bytes) {
            Ok(document) => Some(document),
            Err(source) => {
                self.problems.push(Problem::Document { digest: descriptor.digest, source });
                None
            }
        }
    }

    /// Those that are here of what a document refers to; those that should be and are not become problems.
    fn children(&mut self, parent: &Digest, document: &Document) -> Vec<Descriptor> {
        let children = document.children().into_iter().cloned();
        let (here, absent): (Vec<_>, Vec<_>) = children.partition(|child| self.has(&child.digest));
        match document {
            Document::Index(_) if here.is_empty() && !absent.is_empty() => {
                self.problems.push(Problem::NoManifest { index: *parent, count: absent.len() });
            }
            Document::Index(_) => {}
            Document::Manifest(_) => {
                let labels = self.space.blob(parent).map(|blob: BlobInfo| blob.labels).unwrap_or_default();
                let gone = absent.iter().filter(|child| was_here(&labels, &child.digest));
                let gone = gone.map(|child| Problem::ContentGone { missing: child.digest, parent: *parent });
                self.problems.extend(gone);
            }
        }
        here
    }
}

/// Whether the labels of a document say that a child was here.
fn was_here(labels: &Labels, child: &Digest) -> bool {
    let text = child.to_string();
    labels.iter().any(|(key, value)| key.starts_with("containerd.io/gc.ref.content") && *value == text)
}
