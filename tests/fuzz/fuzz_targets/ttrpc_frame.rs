//! What arrives at a shim's or a daemon's ttrpc socket is foreign: it is frames or an error, within the bytes that came.
#![no_main]
use libfuzzer_sys::fuzz_target;
use runtime_ttrpc::frame;

fuzz_target!(|data: &[u8]| {
    let mut source = data;
    while let Ok(Some(read)) = frame::read(&mut source) {
        let Some(body) = read.body else { continue };
        assert!(body.len() <= data.len());
        let mut again = Vec::new();
        frame::write(&mut again, read.stream, read.kind, &body).expect("what was read is within the limit");
        let twice = frame::read(&mut again.as_slice()).expect("what was written").expect("is a frame");
        assert_eq!((twice.stream, twice.kind, twice.body), (read.stream, read.kind, Some(body)));
    }
});
