// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any bytes on the port are frames or an error, on both sides; what is read is written and read again.
#![no_main]

use holdfast_protocol::{Order, Reply, read_frame, write_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut stream = bytes;
    while let Ok(order) = read_frame::<Order>(&mut stream) {
        let mut wire = Vec::new();
        write_frame(&mut wire, &order).expect("it fitted before");
        assert_eq!(read_frame::<Order>(&mut wire.as_slice()).expect("it was written"), order);
    }
    let mut stream = bytes;
    while let Ok(reply) = read_frame::<Reply>(&mut stream) {
        let mut wire = Vec::new();
        write_frame(&mut wire, &reply).expect("it fitted before");
        assert!(read_frame::<Reply>(&mut wire.as_slice()).is_ok());
    }
});
