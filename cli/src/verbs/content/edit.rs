//! `content edit`: a copy of content in the user's editor, and what comes of it as new content.
//!
//! Content has no second version: the digest is another one, and whoever points to the old one still does.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use runtime_api::containerd::services::content::v1::InfoRequest;

use super::resolve;
use super::upload::Upload;
use crate::args::EditArgs;
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::output;
use crate::verbs::kept;

/// `content edit`: prints the new digest.
///
/// # Errors
/// [`CliError::Editor`], [`CliError::Edited`] when the result is no JSON and shall be, and the engine's. A result that cannot
/// be used stays where the error says.
pub(super) async fn run(client: &Client, args: &EditArgs) -> Result<(), CliError> {
    let digest = resolve(client, &args.digest).await?;
    let what = format!("read {digest}");
    let info = client.content().info(InfoRequest { digest: digest.clone() }).await.map_err(failed(&*what))?;
    let mut stream = client.read(&digest).await.map_err(failed(&*what))?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await.map_err(failed(&*what))? {
        bytes.extend_from_slice(&part.data);
    }
    let copy = Copy::make(&digest, &bytes)?;
    copy.edit(&editor(args.editor.as_deref()))?;
    let edited = copy.read()?;
    if args.validate
        && let Err(source) = serde_json::from_slice::<serde_json::Value>(&edited)
    {
        return Err(CliError::Edited { path: copy.keep(), source });
    }
    if edited == bytes {
        output::note("windlass: nothing was changed");
        return output::print(&format!("{digest}\n"));
    }
    let labels = info.into_inner().info.unwrap_or_default().labels;
    let upload = Upload {
        reference: format!("edit-{}-{}", digest, std::process::id()),
        total: Some(edited.len() as u64),
        expected: storage_model::Digest::of(&edited).to_string(),
        // What it points to is mostly what the old one pointed to: the same labels keep it.
        labels: if args.keep { kept(labels) } else { labels },
    };
    let made = upload.send(client, std::io::Cursor::new(edited)).await?;
    output::print(&format!("{made}\n"))
}

/// The user's editor: as said, then as other programs find it.
fn editor(given: Option<&str>) -> String {
    let from = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    given.map(str::to_owned).or_else(|| from("VISUAL")).or_else(|| from("EDITOR")).unwrap_or("vi".to_owned())
}

/// A file with the content, in a directory only we can read.
struct Copy {
    directory: Directory,
    file: std::path::PathBuf,
}

/// Goes, with what is in it, when dropped.
struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Copy {
    fn make(digest: &str, bytes: &[u8]) -> Result<Self, CliError> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("windlass-edit-{}-{}", std::process::id(), crate::progress::short(digest));
        let path = std::env::temp_dir().join(name);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CliError::File { what: "write", path, source }
        };
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed(&path))?;
        let directory = Directory(path);
        let is_json = serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
        // Editors choose their colours by it.
        let file = directory.0.join(if is_json { "content.json" } else { "content" });
        fs::write(&file, bytes).map_err(failed(&file))?;
        Ok(Self { directory, file })
    }

    /// Runs the editor, by the shell: it may have arguments.
    fn edit(&self, editor: &str) -> Result<(), CliError> {
        let mut script = OsString::from(editor);
        script.push(" \"$0\"");
        let ended = Command::new("sh").arg("-c").arg(script).arg(&self.file).status();
        let status = ended.map_err(|source| CliError::Process("an editor", source))?;
        if status.success() { Ok(()) } else { Err(CliError::Editor { editor: editor.to_owned(), status }) }
    }

    fn read(&self) -> Result<Vec<u8>, CliError> {
        fs::read(&self.file).map_err(|source| CliError::File {
            what: "read",
            path: self.file.clone(),
            source,
        })
    }

    /// Leaves the file where it is.
    fn keep(self) -> std::path::PathBuf {
        std::mem::forget(self.directory);
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_editor_gets_a_private_copy_that_goes_afterwards() {
        let copy = Copy::make("sha256:abcdef", b"{\"a\": 1}").unwrap();
        assert_eq!(copy.file.extension().unwrap(), "json");
        copy.edit("sed -i s/1/2/").unwrap();
        assert_eq!(copy.read().unwrap(), b"{\"a\": 2}");
        assert!(matches!(copy.edit("false"), Err(CliError::Editor { .. })));
        let directory = copy.directory.0.clone();
        drop(copy);
        assert!(!directory.exists());
    }
}
