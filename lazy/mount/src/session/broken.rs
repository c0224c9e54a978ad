//! A connection whose image cannot be shown any more: everything is answered with an error, so that nobody waits.

use std::io;
use std::sync::Arc;

use storage_sys::fuse::{Device, REQUEST_BYTES_MAX, RequestHeader, errno};

use super::Observer;

/// Forget, interrupt and batch-forget: the kernel wants no answer.
const UNANSWERED: [u32; 3] = [2, 36, 42];

/// Answers whatever comes on a connection that another server has served with `EIO`, until its last mount is gone.
///
/// # Errors
/// Those of starting a thread and of [`Device::resend`].
pub(crate) fn refuse_all(device: Arc<Device>, observer: Box<dyn Observer>) -> io::Result<()> {
    device.resend()?;
    let thread = std::thread::Builder::new().name("fuse-broken".into()).stack_size(64 * 1024);
    thread.spawn(move || {
        let mut request = vec![0; REQUEST_BYTES_MAX];
        while let Ok(Some(length)) = device.read(&mut request) {
            let header = RequestHeader::parse(&request[..length]);
            if let Some(header) = header.filter(|header| !UNANSWERED.contains(&header.opcode)) {
                // Whoever asked may be gone.
                let _ = device.refuse(header.unique, errno::IO);
            }
        }
        observer.ended();
    })?;
    Ok(())
}
