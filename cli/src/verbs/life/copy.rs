//! `cp`: files between a container and this machine, as a tar on the way.
//!
//! Into a directory that is there, the source goes under its own name; to a name that is not there, it goes under that name; a
//! source that ends in `/.` is what is in the directory. So Docker does it. What comes out of a container is unpacked inside
//! the directory that was named: no path or link of it leads out (the `tar` crate refuses).
//!
//! Threads read and write the tar, since the crate blocks; a channel of a few pieces joins them to the stream.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use runtime_api::windlass::v1::copy_in_request::Part as InPart;
use runtime_api::windlass::v1::copy_out_response::Part as OutPart;
use runtime_api::windlass::v1::{CopiedPath, CopyInOptions, CopyInRequest, CopyOutRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::args::{CopyArgs, Global};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::interrupt::or_interrupted;
use crate::output;
use crate::verbs::containers::find;

/// Bytes sent at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces on their way at once.
const PIECES: usize = 4;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    /// `-`.
    Pipe,
    /// A path of this machine.
    Here(&'a Path),
    /// A path of a container.
    Container(&'a str, &'a str),
}

/// What was typed, as Docker reads it: a colon makes it a container's, unless a `/` or `.` comes first.
fn side(text: &str) -> Side<'_> {
    match text.split_once(':') {
        _ if text == "-" => Side::Pipe,
        Some((id, path)) if !id.is_empty() && !id.starts_with(['.', '/']) && !id.contains('/') => {
            Side::Container(id, path)
        }
        _ => Side::Here(Path::new(text)),
    }
}

/// `cp`.
///
/// # Errors
/// [`CliError::CopySides`] unless exactly one side is a container's.
pub(crate) async fn run(global: &Global, args: &CopyArgs) -> Result<(), CliError> {
    let (from, to) = (side(&args.source), side(&args.destination));
    match (from, to) {
        (Side::Container(id, path), to @ (Side::Here(_) | Side::Pipe)) => {
            let client = Client::connect(global).await?;
            let id = find(&client, id).await?.id;
            or_interrupted(out(&client, id, path, to, args)).await
        }
        (from @ (Side::Here(_) | Side::Pipe), Side::Container(id, path)) => {
            let client = Client::connect(global).await?;
            let id = find(&client, id).await?.id;
            or_interrupted(bring(&client, id, path, from, args)).await
        }
        _ => Err(CliError::CopySides),
    }
}

/// The path without `/.` at its end, and whether that was there: what is in the directory, not the directory.
fn contents(path: &str) -> (&str, bool) {
    match path.strip_suffix("/.") {
        Some("") => ("/", true),
        Some(rest) => (rest, true),
        None => (path, false),
    }
}

/// From a container.
async fn out(client: &Client, id: String, path: &str, to: Side<'_>, args: &CopyArgs) -> Result<(), CliError> {
    if to == Side::Pipe {
        output::refuse_terminal("a tar")?;
    }
    let (path, only_contents) = contents(path);
    let what = format!("copy {path} out of container {id}");
    let request = CopyOutRequest { id, path: path.to_owned(), follow_link: args.follow_link };
    let mut stream = client.lives().copy_out(request).await.map_err(failed(&what))?.into_inner();
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(PIECES);
    let Some(OutPart::Found(found)) =
        stream.message().await.map_err(failed(&what))?.and_then(|first| first.part)
    else {
        return Err(CliError::Engine {
            what,
            source: Box::new(tonic::Status::internal("the engine did not say what the path is")),
        });
    };
    let place = match to {
        Side::Here(to) => Some(place_here(to, &found, only_contents)?),
        _ => None,
    };
    let keep_owner = args.archive;
    let writer = tokio::task::spawn_blocking(move || match place {
        Some((directory, name)) => unpack(Pieces::new(receiver), &directory, &name, keep_owner),
        None => io::copy(&mut Pieces::new(receiver), &mut io::stdout().lock()).map(drop),
    });
    while let Some(message) = stream.message().await.map_err(failed(&what))? {
        if let Some(OutPart::Data(piece)) = message.part
            && sender.send(piece).await.is_err()
        {
            break;
        }
    }
    drop(sender);
    let written = joined(writer).await;
    written.map_err(|source| CliError::File { what: "write", path: args.destination.clone().into(), source })
}

/// The outcome of a thread.
async fn joined(thread: tokio::task::JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.await.unwrap_or_else(|_| Err(io::Error::other("the thread that copies died")))
}

/// Where what comes belongs: the directory to unpack in, and the name of the outermost entry there (empty: none of its
/// own, only what is in it).
fn place_here(to: &Path, found: &CopiedPath, only_contents: bool) -> Result<(PathBuf, String), CliError> {
    let failed = |source| CliError::File { what: "copy to", path: to.to_owned(), source };
    if to.is_dir() {
        let name = if only_contents { String::new() } else { found.name.clone() };
        return Ok((to.to_owned(), name));
    }
    if to.exists() && found.is_directory {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    if !found.is_directory && to.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    let whole = std::path::absolute(to).map_err(failed)?;
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) if parent.is_dir() => {
            Ok((parent.to_owned(), name.to_string_lossy().into_owned()))
        }
        _ => Err(failed(io::ErrorKind::NotFound.into())),
    }
}

/// Unpacks a tar whose outermost entry is one, below `directory`, as `name`.
fn unpack(from: impl Read, directory: &Path, name: &str, keep_owner: bool) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_ownerships(keep_owner);
    let target = if name.is_empty() { directory.to_owned() } else { directory.join(name) };
    for entry in archive.entries()? {
        let mut entry = entry?;
        entry.set_preserve_permissions(true);
        entry.set_preserve_mtime(true);
        let path = entry.path()?.into_owned();
        let mut parts = path.components();
        let rest = match parts.next() {
            // The outermost entry itself.
            Some(_) => parts.as_path().to_owned(),
            None => continue,
        };
        if rest.as_os_str().is_empty() {
            if entry.header().entry_type().is_dir() {
                fs::create_dir_all(&target)?;
            } else {
                entry.unpack(&target)?;
            }
            continue;
        }
        if rest.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(io::Error::other(format!("the path {} leads elsewhere", path.display())));
        }
        unpack_below(&mut entry, &target, &rest)?;
    }
    Ok(())
}

/// One entry, unpacked at `rest` below `target`; no link that came before is followed.
fn unpack_below(entry: &mut tar::Entry<'_, impl Read>, target: &Path, rest: &Path) -> io::Result<()> {
    let mut at = target.to_owned();
    for part in rest.parent().into_iter().flat_map(Path::components) {
        at.push(part);
        if fs::symlink_metadata(&at)?.file_type().is_symlink() {
            return Err(io::Error::other(format!("{} is a link", at.display())));
        }
    }
    if let Some(link) = entry.link_name()?.filter(|_| entry.header().entry_type().is_hard_link()) {
        // Named from the archive's root: the outermost name is another one here.
        let inside: PathBuf = link.components().skip(1).collect();
        return fs::hard_link(target.join(inside), target.join(rest));
    }
    entry.unpack(target.join(rest)).map(drop)
}

/// Into a container.
async fn bring(
    client: &Client,
    id: String,
    path: &str,
    from: Side<'_>,
    args: &CopyArgs,
) -> Result<(), CliError> {
    if from == Side::Pipe && io::stdin().is_terminal() {
        return Err(CliError::TerminalInput("a tar"));
    }
    let what = format!("copy into {path} of container {id}");
    let options = CopyInOptions { id, path: path.to_owned(), keep_owner: args.archive };
    let (sender, receiver) = mpsc::channel::<CopyInRequest>(PIECES);
    let first = CopyInRequest { part: Some(InPart::Options(options)) };
    // The channel has room, and its other end is ours.
    let _ = sender.send(first).await;
    let source = match from {
        Side::Here(path) => Some(source_of(path, args)?),
        _ => None,
    };
    let reader = tokio::task::spawn_blocking(move || {
        let mut to = Sender { sender, piece: Vec::new() };
        match source {
            Some(source) => source.pack(&mut to)?,
            None => drop(io::copy(&mut io::stdin().lock(), &mut to)?),
        }
        to.flush()
    });
    let sent = client.lives().copy_in(ReceiverStream::new(receiver)).await.map_err(failed(what));
    let read = joined(reader).await;
    // When the engine refuses, the pipe to it breaks: its words are the cause.
    sent?;
    read.map_err(|source| CliError::File { what: "read", path: args.source.clone().into(), source })
}

/// What is packed.
struct Source {
    path: PathBuf,
    name: PathBuf,
    only_contents: bool,
    follow_link: bool,
}

fn source_of(path: &Path, args: &CopyArgs) -> Result<Source, CliError> {
    let text = path.to_string_lossy().into_owned();
    let (text, only_contents) = contents(&text);
    let path = PathBuf::from(text);
    let failed = |source| CliError::File { what: "read", path: path.clone(), source };
    let whole = if args.follow_link {
        path.canonicalize().map_err(failed)?
    } else {
        fs::symlink_metadata(&path).map_err(failed)?;
        std::path::absolute(&path).map_err(failed)?
    };
    let name = path.file_name().or(whole.file_name()).map_or_else(|| PathBuf::from("."), PathBuf::from);
    Ok(Source { path: whole, name, only_contents, follow_link: args.follow_link })
}

impl Source {
    fn pack(&self, to: &mut Sender) -> io::Result<()> {
        let mut builder = tar::Builder::new(to);
        builder.follow_symlinks(false);
        let metadata = fs::symlink_metadata(&self.path)?;
        if metadata.is_dir() {
            let name = if self.only_contents { Path::new(".") } else { &self.name };
            builder.append_dir_all(name, &self.path)?;
        } else {
            builder.follow_symlinks(self.follow_link);
            builder.append_path_with_name(&self.path, &self.name)?;
        }
        builder.finish()
    }
}

/// Pieces of a stream, to be read.
struct Pieces {
    receiver: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { receiver, piece: Vec::new(), at: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receiver.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Sends what is written, in pieces.
struct Sender {
    sender: mpsc::Sender<CopyInRequest>,
    piece: Vec<u8>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let part = Some(InPart::Data(std::mem::take(&mut self.piece)));
        self.sender.blocking_send(CopyInRequest { part }).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart_as_docker_does() {
        assert_eq!(side("-"), Side::Pipe);
        assert_eq!(side("web:/etc"), Side::Container("web", "/etc"));
        assert_eq!(side("./web:/etc"), Side::Here(Path::new("./web:/etc")));
        assert_eq!(side("dir/a:b"), Side::Here(Path::new("dir/a:b")));
        assert_eq!(contents("/srv/."), ("/srv", true));
        assert_eq!(contents("/."), ("/", true));
        assert_eq!(contents("/srv"), ("/srv", false));
    }

    #[test]
    fn what_is_packed_comes_out_under_the_name_it_gets() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::create_dir_all(source.join("deep")).unwrap();
        fs::write(source.join("deep/file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", source.join("link")).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        tar.append_dir_all("source", &source).unwrap();
        let bytes = tar.into_inner().unwrap();
        for (name, path) in [("other", "other/deep/file"), ("", "deep/file")] {
            let target = tempfile::tempdir().unwrap();
            unpack(&bytes[..], target.path(), name, false).unwrap();
            assert_eq!(fs::read_to_string(target.path().join(path)).unwrap(), "text");
        }
    }

    #[test]
    fn vuln_a_link_of_the_container_leads_nobody_out() {
        let outside = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        tar.append_data(&mut header, "top", &[][..]).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "top/link", outside.path()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        tar.append_data(&mut header, "top/link/file", &b"evil"[..]).unwrap();
        let bytes = tar.into_inner().unwrap();
        let target = tempfile::tempdir().unwrap();
        assert!(unpack(&bytes[..], target.path(), "top", false).is_err());
        assert!(!outside.path().join("file").exists());
    }
}
