// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls by number, for UAPI that has no name yet.

use serde::{Deserialize, Serialize};

use super::{Handle, arguments};

arguments! {
    /// fcntl(2): the value is what it returned.
    Fcntl {
        /// The descriptor.
        fd: Handle,
        /// The command's number.
        cmd: i32,
        /// Its argument.
        #[serde(default)]
        arg: i64,
    }

    /// ioctl(2): the value is what it returned.
    Ioctl {
        /// The descriptor.
        fd: Handle,
        /// The request's number.
        request: u64,
        /// Its argument; absent for a number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bytes: Option<Hex>,
        /// Its argument, as a number.
        #[serde(default, skip_serializing_if = "super::is_default")]
        arg: i64,
        /// Shows the bytes afterwards, in hexadecimal, instead of the value.
        #[serde(default, skip_serializing_if = "super::is_default")]
        show: bool,
    }

    /// syscall(2): the value is what it returned.
    Syscall {
        /// The call's number on this architecture.
        nr: i64,
        /// At most six arguments.
        #[serde(default)]
        args: Vec<Arg>,
        /// Shows the bytes of the argument of this index afterwards, in hexadecimal, instead of the value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        show: Option<usize>,
    }
}

/// An argument of [`Syscall`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "an argument is a number, `$HANDLE`, or `{bytes: HEX}` (at most 65536 bytes)")]
pub enum Arg {
    /// Itself.
    Number(i64),
    /// The number of a descriptor, or the address of a mapping.
    Of(Handle),
    /// The address of these bytes.
    Buffer(Buffer),
}

arguments! {
    /// Bytes that a call is given the address of.
    Buffer {
        /// The bytes.
        bytes: Hex,
    }
}

/// The largest buffer a raw call is given, in bytes: what the size field of an ioctl(2) number can say, times
/// four.
pub const MAX_RAW_BYTES: usize = 64 << 10;

/// Bytes, written in hexadecimal; blanks between them are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^\\s*([0-9A-Fa-f]\\s*[0-9A-Fa-f]\\s*)*$")))]
pub struct Hex(Vec<u8>);

impl Hex {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Hex {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits: Vec<u32> = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_digit(16).ok_or_else(|| format!("`{c}` is no hexadecimal digit")))
            .collect::<Result<_, _>>()?;
        if !digits.len().is_multiple_of(2) {
            return Err("half a byte is missing".to_owned());
        }
        if digits.len() / 2 > MAX_RAW_BYTES {
            return Err(format!("at most {MAX_RAW_BYTES} bytes"));
        }
        let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap_or(u8::MAX);
        Ok(Self(digits.chunks_exact(2).map(byte).collect()))
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        hex.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_argument_is_a_number_a_handle_or_bytes() {
        let arg = |text: &str| serde_json::from_str::<Arg>(text);
        assert_eq!(arg("-3").unwrap(), Arg::Number(-3));
        assert!(matches!(arg("\"$fd\"").unwrap(), Arg::Of(handle) if handle.id() == "fd"));
        assert!(
            matches!(arg("{\"bytes\": \"00 ff\"}").unwrap(), Arg::Buffer(one) if one.bytes.bytes() == [0, 255])
        );
        for text in ["\"fd\"", "{\"bytes\": \"0\"}", "{\"bites\": \"00\"}", "null"] {
            assert!(arg(text).unwrap_err().to_string().contains("an argument is a number"), "{text}");
        }
    }

    #[test]
    fn a_buffer_has_a_limit() {
        assert!(Hex::try_from("00".repeat(MAX_RAW_BYTES)).is_ok());
        let long = "00".repeat(MAX_RAW_BYTES + 1);
        let limit = format!("at most {MAX_RAW_BYTES} bytes");
        assert_eq!(Hex::try_from(long.clone()).unwrap_err(), limit);
        let arg = serde_json::from_value::<Arg>(serde_json::json!({"bytes": long})).unwrap_err();
        assert!(arg.to_string().contains(&limit), "{arg}");
        assert!(Hex::try_from("0g".to_owned()).unwrap_err().contains("`g`"));
    }

    proptest! {
        #[test]
        fn bytes_go_both_ways(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = String::from(Hex::from(bytes.clone()));
            let back = Hex::try_from(text).unwrap();
            prop_assert_eq!(back.bytes(), bytes.as_slice());
        }
    }
}
