//! What a list of mounts would show, for who can look at the directories themselves.

use std::path::PathBuf;

use super::Mount;
use super::options::{directories, sort};

/// The directories behind mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// One directory as it stands.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whether the mount would refuse to be written to.
        read_only: bool,
    },
    /// An overlay.
    Overlay {
        /// Its upper directory; none if it is read-only.
        upper: Option<PathBuf>,
        /// Its lower directories, the highest first.
        lower: Vec<PathBuf>,
    },
    /// Something that must be mounted to be seen: another file system, or several mounts.
    Mounted,
}

/// Says what `mounts` would show. Nothing is looked at but the words.
pub fn shape(mounts: &[Mount]) -> Shape {
    let [mount] = mounts else { return Shape::Mounted };
    let sorted = sort(&mount.options);
    if mount.kind == "bind" || mount.kind == "rbind" || sorted.bind.is_some() {
        let path = PathBuf::from(&mount.source);
        return Shape::Directory { path, read_only: sorted.attributes.read_only };
    }
    if mount.kind != "overlay" {
        return Shape::Mounted;
    }
    match directories(&sorted.settings) {
        Ok(found) => {
            let upper = found.upper.filter(|_| !sorted.attributes.read_only);
            Shape::Overlay { upper, lower: found.lower }
        }
        // Mounting says what is wrong with it.
        Err(_) => Shape::Mounted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Mount { kind: kind.to_owned(), source: source.to_owned(), options }
    }

    #[test]
    fn the_directories_of_binds_and_overlays_are_named() {
        let bind = mount("bind", "/a", &["rbind", "ro"]);
        assert_eq!(
            shape(std::slice::from_ref(&bind)),
            Shape::Directory { path: "/a".into(), read_only: true }
        );
        let overlay = mount("overlay", "overlay", &["lowerdir=/b\\:c:/d", "upperdir=/u", "workdir=/w"]);
        let lower = vec!["/b:c".into(), "/d".into()];
        assert_eq!(shape(std::slice::from_ref(&overlay)), Shape::Overlay { upper: Some("/u".into()), lower });
        assert_eq!(shape(&[bind, overlay]), Shape::Mounted);
        assert_eq!(shape(&[mount("tmpfs", "tmpfs", &[])]), Shape::Mounted);
        assert_eq!(shape(&[]), Shape::Mounted);
    }
}
