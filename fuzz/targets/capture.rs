//! `weir explain --pcap`: any file is a capture or refused, and every frame of it has a line.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../control/src/explain/capture.rs"]
mod capture;
#[path = "../../control/src/explain/describe.rs"]
mod describe;

fuzz_target!(|file: &[u8]| {
    let Ok(frames) = capture::read(file) else {
        return;
    };
    for frame in &frames {
        assert!(!describe::frame(&frame.frame).is_empty());
    }
    let again = capture::write(frames.iter().map(|f| (f.at, &*f.frame)));
    if frames
        .iter()
        .all(|f| f.at.as_secs() < 1 << 32 && f.frame.len() < 262_144)
    {
        let again = capture::read(&again).expect("what was written is read");
        assert_eq!(again.len(), frames.len());
    }
});
