//! `images import` and `images export`: archives as streams, from and to files, standard input and standard output.
//!
//! An import sends the file as it is read; when reading fails, the call is dropped rather than half-closed, so that the engine
//! does not take a cut archive for a whole one. An export goes to a file beside the wanted one, which takes its name when all
//! of it is there and synced: an interrupted one leaves nothing.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use runtime_api::windlass::v1::export_response::Part;
use runtime_api::windlass::v1::transfer_event::Event;
use runtime_api::windlass::v1::{
    ExportRequest, ImportOptions, ImportRequest, TransferDone, TransferEvent, import_request,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{follow, told};
use crate::args::{ExportArgs, Global, ImportArgs};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image;
use crate::interrupt;
use crate::output;
use crate::progress::{Progress, transferred};
use crate::verbs::label_map;

/// Bytes of an archive in one message: few messages, and far below the 16 MiB one may have.
const PART_BYTES: usize = 1024 * 1024;

/// Messages read ahead of the engine.
const PARTS_WAITING: usize = 4;

/// `images import`.
///
/// # Errors
/// [`CliError`]: the file cannot be read, the engine's answer, Ctrl-C. No image has been made then.
pub(crate) async fn import(global: &Global, args: &ImportArgs) -> Result<(), CliError> {
    let file = open(&args.file)?;
    let client = Client::connect(global).await?;
    let what = format!("import {}", shown(&args.file, "standard input"));
    let mut progress = Progress::choose(args.quiet, &global.format);
    let call = send(&client, args, file, &mut progress, &what);
    let outcome = interrupt::or_interrupted(call).await;
    progress.finish();
    let done = outcome?;
    if progress.wants_summary() {
        output::note(&transferred("Imported", &shown(&args.file, "standard input"), &done));
    }
    told(&done, &global.format, args.quiet)
}

async fn send(
    client: &Client,
    args: &ImportArgs,
    file: Box<dyn Read + Send>,
    progress: &mut Progress,
    what: &str,
) -> Result<TransferDone, CliError> {
    let (parts, receiver) = mpsc::channel(PARTS_WAITING);
    let (broken, is_broken) = oneshot::channel();
    let first = ImportRequest { part: Some(import_request::Part::Options(options(args))) };
    std::thread::Builder::new()
        .name("archive".to_owned())
        .spawn(move || read(file, first, &parts, broken))
        .map_err(|source| CliError::Process("a thread", source))?;
    let call = async {
        let events = client.engine().import(ReceiverStream::new(receiver)).await;
        follow(events.map_err(failed(what))?.into_inner(), progress, what).await
    };
    tokio::select! {
        biased;
        outcome = call => outcome,
        // A reader that came to the end says nothing: then only the engine's answer is waited for.
        Ok(source) = is_broken => Err(CliError::File { what: "read", path: args.file.clone(), source }),
    }
}

/// Sends the file's bytes until its end, an error, or nobody takes them any more.
fn read(
    mut file: Box<dyn Read + Send>,
    first: ImportRequest,
    parts: &mpsc::Sender<ImportRequest>,
    broken: oneshot::Sender<io::Error>,
) {
    if parts.blocking_send(first).is_err() {
        return;
    }
    loop {
        let mut data = vec![0; PART_BYTES];
        match file.read(&mut data) {
            Ok(0) => return,
            Ok(count) => {
                data.truncate(count);
                let part = ImportRequest { part: Some(import_request::Part::Data(data)) };
                if parts.blocking_send(part).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if broken.send(error).is_ok() {
                    // Held open: an end here would be taken for the end of the archive.
                    std::thread::park();
                }
                return;
            }
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn Read + Send>, CliError> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            return Err(CliError::TerminalInput("an archive"));
        }
        return Ok(Box::new(io::stdin()));
    }
    let failed = |source| CliError::File { what: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    Ok(Box::new(file))
}

fn options(args: &ImportArgs) -> ImportOptions {
    ImportOptions {
        base_name: args.base_name.clone().unwrap_or_default(),
        index_name: args.index_name.clone().unwrap_or_default(),
        digests: args.digests,
        skip_digest_for_named: args.skip_digest_for_named,
        platforms: args.platforms.names(),
        all_platforms: args.platforms.all_platforms,
        no_unpack: args.no_unpack,
        snapshotter: args.snapshotter.name(),
        labels: label_map(&args.label),
        compress_blobs: args.compress_blobs,
        replace: args.replace,
    }
}

/// `images export`.
///
/// # Errors
/// [`CliError`]: no such image, the file cannot be written, the engine's answer, Ctrl-C. The file is then as before.
pub(crate) async fn export(global: &Global, args: &ExportArgs) -> Result<(), CliError> {
    let mut target = Target::open(&args.output)?;
    let client = Client::connect(global).await?;
    let mut images = Vec::new();
    for typed in &args.images {
        images.push(image::get(&client, typed).await?.name);
    }
    let request = ExportRequest {
        images,
        platforms: args.platforms.names(),
        all_platforms: args.platforms.all_platforms,
        skip_manifest_json: args.skip_manifest_json,
        skip_non_distributable: args.skip_non_distributable,
    };
    let mut progress = Progress::choose(args.quiet, &global.format);
    if target.is_stdout() {
        progress = progress.aside();
    }
    let what = format!("export {}", args.images.join(", "));
    let outcome =
        interrupt::or_interrupted(receive(&client, request, &mut target, &mut progress, &what)).await;
    progress.finish();
    let done = outcome?;
    let is_stdout = target.is_stdout();
    target.finish()?;
    if progress.wants_summary() {
        output::note(&transferred("Exported", &shown(&args.output, "standard output"), &done));
    }
    if is_stdout { Ok(()) } else { told(&done, &global.format, args.quiet) }
}

async fn receive(
    client: &Client,
    request: ExportRequest,
    target: &mut Target,
    progress: &mut Progress,
    what: &str,
) -> Result<TransferDone, CliError> {
    let mut parts = client.engine().export(request).await.map_err(failed(what))?.into_inner();
    while let Some(part) = parts.message().await.map_err(failed(what))? {
        match part.part {
            Some(Part::Data(data)) => target.write(&data)?,
            Some(Part::Event(event)) => {
                progress.event(&event)?;
                if let TransferEvent { event: Some(Event::Done(done)) } = event {
                    return Ok(done);
                }
            }
            None => {}
        }
    }
    Err(failed(what)(Status::internal("the archive ended without a result")))
}

/// Where an archive goes.
enum Target {
    Stdout,
    /// The file that grows, and what it will be called.
    File {
        file: File,
        growing: Growing,
        path: PathBuf,
    },
    /// A device or pipe of the user's: written as it is.
    Device {
        file: File,
        path: PathBuf,
    },
}

/// A file that goes when this is dropped.
struct Growing(PathBuf);

impl Drop for Growing {
    fn drop(&mut self) {
        // It has its final name, or nobody can be told.
        let _ = fs::remove_file(&self.0);
    }
}

impl Target {
    fn open(path: &Path) -> Result<Self, CliError> {
        if path == Path::new("-") {
            output::refuse_terminal("an archive")?;
            return Ok(Self::Stdout);
        }
        let failed = |source| CliError::File { what: "write", path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(failed(io::Error::from(io::ErrorKind::IsADirectory))),
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(path).map_err(failed)?;
                return Ok(Self::Device { file, path: path.to_owned() });
            }
            Ok(_) | Err(_) => {}
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let file = File::create_new(&name).map_err(failed)?;
        Ok(Self::File { file, growing: Growing(name.into()), path: path.to_owned() })
    }

    fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    fn write(&mut self, data: &[u8]) -> Result<(), CliError> {
        let (file, path) = match self {
            Self::Stdout => return output::print_bytes(data),
            Self::File { file, path, .. } | Self::Device { file, path } => (file, path),
        };
        file.write_all(data).map_err(|source| CliError::File { what: "write", path: path.clone(), source })
    }

    /// Makes what was written what it is called.
    fn finish(self) -> Result<(), CliError> {
        let Self::File { file, growing, path } = self else { return Ok(()) };
        let renamed = file.sync_all().and_then(|()| fs::rename(&growing.0, &path));
        renamed.map_err(|source| CliError::File { what: "write", path, source })
    }
}

fn shown(path: &Path, standard: &str) -> String {
    if path == Path::new("-") { standard.to_owned() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_that_ends_early_leaves_the_old_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        fs::write(&path, "old").unwrap();
        let mut target = Target::open(&path).unwrap();
        target.write(b"new").unwrap();
        drop(target);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let mut target = Target::open(&path).unwrap();
        target.write(b"new").unwrap();
        target.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_no_archive() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(open(directory.path()), Err(CliError::File { .. })));
        assert!(matches!(Target::open(directory.path()), Err(CliError::File { .. })));
    }

    /// A source that breaks after its first bytes.
    struct Broken(bool);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::Error::other("the disk is gone"));
            }
            buffer[0] = 1;
            Ok(1)
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_to_its_end_is_not_sent_as_a_whole_one() {
        let (parts, mut receiver) = mpsc::channel(PARTS_WAITING);
        let (broken, is_broken) = oneshot::channel();
        std::thread::spawn(move || read(Box::new(Broken(false)), ImportRequest::default(), &parts, broken));
        assert_eq!(is_broken.await.unwrap().to_string(), "the disk is gone");
        assert!(receiver.recv().await.is_some() && receiver.recv().await.is_some());
        // Not an end: nothing.
        assert!(matches!(receiver.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
    }
}
