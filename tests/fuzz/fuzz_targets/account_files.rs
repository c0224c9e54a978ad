//! An image's `/etc/passwd` and `/etc/group` are foreign: whatever they hold, a number stays that number.
#![no_main]
use libfuzzer_sys::fuzz_target;
use runtime_container::files::{FileLookup, LookupError};
use runtime_container::spec::resolve_user;

struct Files<'a>(&'a [u8]);

impl FileLookup for Files<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, LookupError> {
        let half = self.0.len() / 2;
        Ok(Some(if path == "/etc/passwd" { &self.0[..half] } else { &self.0[half..] }.to_vec()))
    }
}

fuzz_target!(|data: (u32, &str, &[u8])| {
    let (number, name, bytes) = data;
    let number = number & 0x7fff_ffff;
    let account = resolve_user(&number.to_string(), &Files(bytes)).expect("a number in range needs no row");
    assert_eq!(account.uid, number);
    if let Ok(account) = resolve_user(name, &Files(bytes)) {
        assert!(account.all_groups().iter().all(|&gid| gid <= 0x7fff_ffff));
    }
});
