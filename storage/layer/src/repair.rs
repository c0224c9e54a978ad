//! [`repair_tree`]: the bad entries of a tree, and no others, replaced by fresh ones.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use storage_sys::tree::{EntryPath, Mending, Times, View};

use crate::check::{Comparison, Records, TreeError, TreeFault, check_tree};
use crate::record::What;

/// Makes the tree at `tree` what its record says, with entries of `fresh`, the same layer unpacked again beside it on
/// the same file system. Returns the entries that were replaced, made, dressed anew or removed.
///
/// Good entries are not touched: not their inodes, not the times of their directories. A bad one is replaced by rename,
/// so that a running overlay sees the old or the new and never nothing; what it has open or cached stays the old until
/// it lets go. Whatever the record does not have is removed. `fresh` loses nothing. Call [`crate::settle`] on `fresh`
/// first if the layer implies directories. Nothing is synced.
///
/// # Errors
/// As [`check_tree`]; [`TreeError::Fresh`] before a fresh entry that is not as recorded is used; [`TreeError::Mend`] if
/// the kernel refuses. What was mended before stays so; calling it again goes on.
pub fn repair_tree(record: &Path, tree: &Path, fresh: &Path) -> Result<Vec<EntryPath>, TreeError> {
    let bad = bad_entries(record, tree)?;
    if bad.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |source| TreeError::Tree { path: fresh.to_owned(), source };
    let view = View::open(fresh).map_err(failed)?;
    let mut this = Repair {
        mending: Mending::new(tree, fresh),
        fresh: view,
        compare: Comparison::new(true),
        touched: HashMap::new(),
        naked: Vec::new(),
        mended: Vec::new(),
    };
    for (path, _) in bad.iter().filter(|(_, wrong)| **wrong == Wrong::Alien) {
        this.touch(path)?;
        this.mending.remove(path).map_err(mend(path))?;
        this.mended.push(path.clone());
    }
    this.entries(record, &bad)?;
    this.finish()
}

/// What has to be done about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Replace it, or dress it if it is a directory.
    Bad,
    /// Remove it.
    Alien,
}

fn bad_entries(record: &Path, tree: &Path) -> Result<BTreeMap<EntryPath, Wrong>, TreeError> {
    let mut bad = BTreeMap::new();
    check_tree(record, tree, true, &mut |problem| {
        let wrong = if matches!(problem.fault, TreeFault::Unexpected) { Wrong::Alien } else { Wrong::Bad };
        bad.insert(problem.path, wrong);
    })?;
    Ok(bad)
}

/// Numbers of the entries that have more names.
fn firsts(record: &Path) -> Result<HashSet<u64>, TreeError> {
    let mut records = Records::open(record)?;
    let mut firsts = HashSet::new();
    while let Some(entry) = records.next()? {
        if let What::Link { first } = entry.what {
            firsts.insert(first);
        }
    }
    Ok(firsts)
}

struct Repair<'p> {
    mending: Mending<'p>,
    fresh: View,
    compare: Comparison,
    /// Directories whose content is changed, and their times before; they get these back.
    touched: HashMap<EntryPath, Option<Times>>,
    /// Directories that get their attributes from the fresh tree.
    naked: Vec<EntryPath>,
    mended: Vec<EntryPath>,
}

impl Repair<'_> {
    /// Goes through the record, so that a directory is there before what is in it.
    fn entries(&mut self, record: &Path, bad: &BTreeMap<EntryPath, Wrong>) -> Result<(), TreeError> {
        let firsts = firsts(record)?;
        let mut names = HashMap::new();
        let mut replaced = HashSet::new();
        let mut records = Records::open(record)?;
        for number in 0.. {
            let Some(entry) = records.next()? else { break };
            if firsts.contains(&number) {
                names.insert(number, entry.path.clone());
            }
            let is_bad = bad.get(&entry.path) == Some(&Wrong::Bad);
            match entry.what {
                What::Link { first } if is_bad || replaced.contains(&first) => {
                    self.touch(&entry.path)?;
                    let first = &names[&first];
                    self.mending.link(first, &entry.path).map_err(mend(&entry.path))?;
                    self.mended.push(entry.path);
                }
                _ if !is_bad => {}
                What::Directory => {
                    if !entry.path.is_root() {
                        self.touch(&entry.path)?;
                        self.mending.directory(&entry.path).map_err(mend(&entry.path))?;
                    }
                    self.naked.push(entry.path.clone());
                    self.mended.push(entry.path);
                }
                _ => {
                    if let Some(fault) = self.compare.entry(&mut self.fresh, &entry).into_iter().next() {
                        return Err(TreeError::Fresh { path: entry.path, fault: Box::new(fault) });
                    }
                    self.touch(&entry.path)?;
                    self.mending.take(&entry.path).map_err(mend(&entry.path))?;
                    replaced.insert(number);
                    self.mended.push(entry.path);
                }
            }
        }
        Ok(())
    }

    /// Remembers the times of the directory of an entry that will be changed.
    fn touch(&mut self, path: &EntryPath) -> Result<(), TreeError> {
        let parent = path.parent();
        if !self.touched.contains_key(&parent) {
            let times = self.mending.times(&parent).map_err(mend(&parent))?;
            self.touched.insert(parent, Some(times));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<EntryPath>, TreeError> {
        for path in std::mem::take(&mut self.naked) {
            self.mending.dress_directory(&path).map_err(mend(&path))?;
            self.touched.insert(path, None);
        }
        for (path, times) in &self.touched {
            if let Some(times) = times {
                self.mending.set_times(path, *times).map_err(mend(path))?;
            }
        }
        Ok(self.mended)
    }
}

fn mend(path: &EntryPath) -> impl FnOnce(std::io::Error) -> TreeError {
    let path = path.clone();
    move |source| TreeError::Mend { path, source }
}
