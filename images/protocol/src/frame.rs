// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames: a little-endian `u32` length, then that many bytes of JSON.
//!
//! JSON because the transcript of a run is evidence that a person reads.

use std::fmt;
use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame either side accepts, in bytes. A kernel log window is the largest thing sent.
pub const MAX_FRAME_BYTES: usize = 4 << 20;

/// Why a frame could not be read.
#[derive(Debug)]
pub enum FrameError {
    /// The other side closed the stream between two frames.
    Closed,
    /// The stream ended or failed within a frame.
    Io(io::Error),
    /// The announced length is beyond [`MAX_FRAME_BYTES`]: the stream is out of step.
    TooLong(usize),
    /// The bytes are not the JSON this side expects; holds the text (cut short) and serde's reason.
    Garbled(String, String),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "the stream was closed"),
            Self::Io(error) => write!(f, "the stream failed within a frame: {error}"),
            Self::TooLong(len) => write!(f, "a frame announced {len} bytes (at most {MAX_FRAME_BYTES})"),
            Self::Garbled(text, why) => write!(f, "a frame could not be understood: {why}: {text:?}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Reads one frame; blocks until it is whole.
///
/// # Errors
/// See [`FrameError`].
pub fn read_frame<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, FrameError> {
    let mut header = [0u8; 4];
    match stream.read(&mut header).map_err(FrameError::Io)? {
        0 => return Err(FrameError::Closed),
        n => stream.read_exact(&mut header[n..]).map_err(FrameError::Io)?,
    }
    let len = u32::from_le_bytes(header) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong(len));
    }
    let mut body = vec![0u8; len];
    stream.read_exact(&mut body).map_err(FrameError::Io)?;
    serde_json::from_slice(&body).map_err(|error| {
        let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        FrameError::Garbled(text, error.to_string())
    })
}

/// Writes one frame in a single `write_all`, so that a frame is never interleaved.
///
/// # Errors
/// What the stream said; `InvalidData` if the message is longer than [`MAX_FRAME_BYTES`].
pub fn write_frame<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let mut bytes = vec![0u8; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let len = bytes.len() - 4;
    if len > MAX_FRAME_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {len} bytes (at most {MAX_FRAME_BYTES})"),
        ));
    }
    bytes[..4].copy_from_slice(&u32::try_from(len).expect("checked above").to_le_bytes());
    stream.write_all(&bytes)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(text in ".*", more in proptest::collection::vec(any::<i64>(), 0..20)) {
            let mut wire = Vec::new();
            write_frame(&mut wire, &(&text, &more)).unwrap();
            let back: (String, Vec<i64>) = read_frame(&mut wire.as_slice()).unwrap();
            prop_assert_eq!(back, (text, more));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_frame::<serde_json::Value>(&mut bytes.as_slice());
        }
    }

    #[test]
    fn an_end_within_a_frame_is_not_a_clean_close() {
        assert!(matches!(read_frame::<u8>(&mut [].as_slice()), Err(FrameError::Closed)));
        assert!(matches!(read_frame::<u8>(&mut [1, 0].as_slice()), Err(FrameError::Io(_))));
        assert!(matches!(read_frame::<u8>(&mut [2, 0, 0, 0, b'1'].as_slice()), Err(FrameError::Io(_))));
    }

    #[test]
    fn a_length_out_of_step_is_refused_before_memory_is_taken() {
        assert!(matches!(read_frame::<u8>(&mut [0xff; 8].as_slice()), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_frame_has_a_limit_that_both_sides_name() {
        // In quotes: two bytes more.
        let most = "x".repeat(MAX_FRAME_BYTES - 2);
        let mut wire = Vec::new();
        write_frame(&mut wire, &most).unwrap();
        assert_eq!(read_frame::<String>(&mut wire.as_slice()).unwrap(), most);
        let mut none = Vec::new();
        let unsent = write_frame(&mut none, &format!("{most}x")).unwrap_err();
        assert_eq!(unsent.to_string(), "a message of 4194305 bytes (at most 4194304)");
        assert!(none.is_empty(), "part of a message leaves the stream out of step");
        wire[..4].copy_from_slice(&4_194_305_u32.to_le_bytes());
        let unread = read_frame::<String>(&mut wire.as_slice()).unwrap_err();
        assert_eq!(unread.to_string(), "a frame announced 4194305 bytes (at most 4194304)");
    }
}
