//! [`check_tree`]: a tree beside its record.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use storage_sys::tree::{EntryPath, Facts, Kind, View};

use crate::record::{Content, RecordError, RecordReader, Recorded, Walk, What, in_order, xattr_digest};

/// Bytes of a file read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// One difference of a tree from its record.
#[derive(Debug)]
pub struct TreeProblem {
    /// The entry.
    pub path: EntryPath,
    /// What is wrong with it.
    pub fault: TreeFault,
}

/// What can be wrong with an entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeFault {
    /// Recorded, and not there.
    #[error("is missing")]
    Missing,
    /// There, and not recorded; what is below it is not looked at.
    #[error("does not belong to the layer")]
    Unexpected,
    /// Something else than what was recorded.
    #[error("is another kind of entry: {found:?} and not {recorded:?}")]
    Kind {
        /// What it was.
        recorded: Kind,
        /// What it is.
        found: Kind,
    },
    /// Permission, set-ID or sticky bits.
    #[error("has mode {found:04o} and not {recorded:04o}")]
    Mode {
        /// What it was.
        recorded: u32,
        /// What it is.
        found: u32,
    },
    /// Owner or group.
    #[error("belongs to {}:{} and not {}:{}", found.0, found.1, recorded.0, recorded.1)]
    Owner {
        /// What it was.
        recorded: (u32, u32),
        /// What it is.
        found: (u32, u32),
    },
    /// Time of the last change.
    #[error("was changed later than it was unpacked, or its time was")]
    Time,
    /// Length of a file; 0 where it should not be is what a power cut leaves.
    #[error("has {found_bytes} bytes and not {recorded_bytes}")]
    Size {
        /// What it was.
        recorded_bytes: u64,
        /// What it is.
        found_bytes: u64,
    },
    /// Content of a file of the right length.
    #[error("has another content")]
    Content,
    /// Target of a symbolic link.
    #[error("leads elsewhere")]
    Target,
    /// Device number.
    #[error("is another device")]
    Device,
    /// Extended attributes.
    #[error("has other extended attributes")]
    Xattrs,
    /// An overlay's opaque mark, lost or added.
    #[error("hides lower layers and should not, or the other way round")]
    Opaque,
    /// A hard link that is a file of its own now.
    #[error("is no longer the same file as its other names")]
    Link,
    /// The kernel does not let us see.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeSummary {
    /// Entries recorded.
    pub entries: u64,
    /// Bytes of files read.
    pub read_bytes: u64,
    /// Differences found.
    pub problems: u64,
}

/// Why a tree cannot be checked or mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The record cannot be used.
    #[error("{path}: {source}; unpacking the layer again makes a new one")]
    Record {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: RecordError,
    },
    /// A tree cannot be opened or gone through.
    #[error("cannot go through the tree {path}: {source}")]
    Tree {
        /// Its root.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// What was unpacked afresh is not what the record says: it is of another layer.
    #[error("the tree unpacked again differs from the record at {path}: {fault}; it cannot mend this one")]
    Fresh {
        /// The entry.
        path: EntryPath,
        /// What is wrong with it.
        #[source]
        fault: Box<TreeFault>,
    },
    /// An entry cannot be replaced.
    #[error("cannot mend {path}: {source}")]
    Mend {
        /// The entry.
        path: EntryPath,
        /// The kernel's word.
        source: io::Error,
    },
}

/// Compares the tree at `tree` with its record, and the content of its files as well if `read_data`.
///
/// `visit` gets each difference when it is met, in the order of a walk; an entry may have several. Nothing is changed,
/// not even times of access. The tree may be mounted, as long as nobody writes to it.
///
/// # Errors
/// [`TreeError::Record`] if the record is missing or damaged, [`TreeError::Tree`] if the root is missing. Entries that
/// cannot be read are differences, no errors.
pub fn check_tree(
    record: &Path,
    tree: &Path,
    read_data: bool,
    visit: &mut dyn FnMut(TreeProblem),
) -> Result<TreeSummary, TreeError> {
    let mut records = Records::open(record)?;
    let failed = |source| TreeError::Tree { path: tree.to_owned(), source };
    let mut view = View::open(tree).map_err(failed)?;
    let mut comparison = Comparison::new(read_data);
    let mut summary = TreeSummary::default();
    let mut report = |path: EntryPath, fault| {
        summary.problems += 1;
        visit(TreeProblem { path, fault });
    };
    if let Some(root) = records.next()? {
        for fault in comparison.entry(&mut view, &root) {
            report(root.path.clone(), fault);
        }
    }
    let mut walk = Walk::new(&mut view).map_err(failed)?;
    let (mut recorded, mut found) = (records.next()?, walk.next());
    loop {
        let order = match (&recorded, &found) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(entry), Some((path, _))) => in_order(&entry.path, path),
        };
        if order.is_le()
            && let Some(entry) = recorded.take()
        {
            let faults = comparison.entry(&mut view, &entry);
            let is_there = entry.what == What::Directory
                && !faults.iter().any(|fault| matches!(fault, TreeFault::Missing | TreeFault::Kind { .. }));
            for fault in faults {
                report(entry.path.clone(), fault);
            }
            if is_there && let Err(error) = walk.enter(&mut view, entry.path.clone()) {
                report(entry.path.clone(), TreeFault::Unreadable(error));
            }
            recorded = records.next()?;
        }
        if order.is_gt()
            && let Some((path, _)) = &found
        {
            report(path.clone(), TreeFault::Unexpected);
        }
        if order.is_ge() {
            found = walk.next();
        }
    }
    summary.entries = comparison.entries;
    summary.read_bytes = comparison.read_bytes;
    Ok(summary)
}

/// The entries of a record file.
pub(crate) struct Records {
    reader: RecordReader<File>,
    path: PathBuf,
}

impl Records {
    pub(crate) fn open(path: &Path) -> Result<Self, TreeError> {
        let reader = File::open(path).map_err(RecordError::Io).and_then(RecordReader::new);
        let path = path.to_owned();
        match reader {
            Ok(reader) => Ok(Self { reader, path }),
            Err(source) => Err(TreeError::Record { path, source }),
        }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Recorded>, TreeError> {
        self.reader.next_entry().map_err(|source| TreeError::Record { path: self.path.clone(), source })
    }
}

/// Compares entries of one tree with their records, in order.
pub(crate) struct Comparison {
    /// For contents; empty if they are not read.
    buffer: Vec<u8>,
    /// Inodes of entries with several names, by their number in the record.
    several: HashMap<u64, u64>,
    entries: u64,
    read_bytes: u64,
}

impl Comparison {
    pub(crate) fn new(read_data: bool) -> Self {
        let buffer = vec![0; if read_data { BUFFER_BYTES } else { 0 }];
        Self { buffer, several: HashMap::new(), entries: 0, read_bytes: 0 }
    }

    /// What is wrong with the next entry of the record.
    pub(crate) fn entry(&mut self, view: &mut View, entry: &Recorded) -> Vec<TreeFault> {
        let number = self.entries;
        self.entries += 1;
        let mut faults = Vec::new();
        match view.facts(&entry.path) {
            Ok(None) => faults.push(TreeFault::Missing),
            Err(error) => faults.push(TreeFault::Unreadable(error)),
            Ok(Some(facts)) => {
                if facts.kind != Kind::Directory && facts.links > 1 {
                    self.several.insert(number, facts.inode);
                }
                if let Err(error) = self.compare(view, entry, &facts, &mut faults) {
                    faults.push(TreeFault::Unreadable(error));
                }
            }
        }
        faults
    }

    fn compare(
        &mut self,
        view: &mut View,
        entry: &Recorded,
        facts: &Facts,
        faults: &mut Vec<TreeFault>,
    ) -> io::Result<()> {
        let recorded = match &entry.what {
            What::Link { first } => {
                if self.several.get(first) != Some(&facts.inode) {
                    faults.push(TreeFault::Link);
                }
                return Ok(());
            }
            What::Directory => Kind::Directory,
            What::File { .. } => Kind::File,
            What::Symlink { .. } => Kind::Symlink,
            What::Char { .. } => Kind::Char,
            What::Block { .. } => Kind::Block,
            What::Fifo => Kind::Fifo,
        };
        if facts.kind != recorded {
            faults.push(TreeFault::Kind { recorded, found: facts.kind });
            return Ok(());
        }
        let xattrs = view.xattrs(&entry.path)?;
        let opaque = xattrs.iter().any(|(name, value)| name == b"trusted.overlay.opaque" && value == b"y");
        if recorded == Kind::Directory && opaque != entry.opaque {
            faults.push(TreeFault::Opaque);
        }
        if !entry.implied && !facts.is_whiteout() {
            attributes(entry, facts, faults);
            if xattr_digest(&xattrs) != entry.xattrs {
                faults.push(TreeFault::Xattrs);
            }
        }
        self.content(view, entry, facts, faults)
    }

    fn content(
        &mut self,
        view: &mut View,
        entry: &Recorded,
        facts: &Facts,
        faults: &mut Vec<TreeFault>,
    ) -> io::Result<()> {
        match &entry.what {
            What::File { size, .. } if *size != facts.size => {
                faults.push(TreeFault::Size { recorded_bytes: *size, found_bytes: facts.size });
            }
            What::File { size, content: Some(content) } if !self.buffer.is_empty() => {
                let found = Content::of(view.file(&entry.path)?, &mut self.buffer)?;
                self.read_bytes += size;
                if found != *content {
                    faults.push(TreeFault::Content);
                }
            }
            What::Symlink { target } if view.read_link(&entry.path)? != *target => {
                faults.push(TreeFault::Target);
            }
            What::Char { major, minor } | What::Block { major, minor }
                if (*major, *minor) != facts.device =>
            {
                faults.push(TreeFault::Device);
            }
            _ => {}
        }
        Ok(())
    }
}

fn attributes(entry: &Recorded, facts: &Facts, faults: &mut Vec<TreeFault>) {
    if entry.mode != facts.mode {
        faults.push(TreeFault::Mode { recorded: entry.mode, found: facts.mode });
    }
    let owner = (facts.uid, facts.gid);
    if (entry.uid, entry.gid) != owner {
        faults.push(TreeFault::Owner { recorded: (entry.uid, entry.gid), found: owner });
    }
    if entry.mtime != facts.mtime {
        faults.push(TreeFault::Time);
    }
}
