// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases, and the signals that tell their holders of a break (fcntl(2), fs/locks.c, fs/fcntl.c).

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::{Handle, OwnerKind, arguments};

arguments! {
    /// fcntl(2) F_SETLEASE.
    SetLease {
        /// The descriptor.
        fd: Handle,
        /// What is taken, or let go; a number is one that only a kernel under development knows.
        lease: Lease,
    }

    /// fcntl(2) F_GETLEASE: the lease's number is the value (F_RDLCK 0, F_WRLCK 1, F_UNLCK 2).
    GetLease {
        /// The descriptor.
        fd: Handle,
    }

    /// fcntl(2) F_SETOWN: who gets the signal. Give either `actor` or `group`.
    SetOwn {
        /// The descriptor.
        fd: Handle,
        /// The process of this actor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
        /// The process group that this actor is in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    }

    /// fcntl(2) F_SETOWN_EX.
    SetOwnEx {
        /// The descriptor.
        fd: Handle,
        /// What kind of owner.
        kind: OwnerKind,
        /// The actor whose first thread, process or process group it is.
        actor: String,
    }

    /// fcntl(2) F_GETOWN: the number is the value.
    GetOwn {
        /// The descriptor.
        fd: Handle,
    }

    /// fcntl(2) F_SETSIG.
    SetSig {
        /// The descriptor.
        fd: Handle,
        /// Standard name, `SIGRTMIN+1` included; absent for 0: a plain SIGIO.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    }

    /// fcntl(2) F_GETSIG: the number is the value.
    GetSig {
        /// The descriptor.
        fd: Handle,
    }

    /// Waits, as long as the step may take, for a signal that a handler of this actor has got and no
    /// earlier `received` was given: `signal ...`, or `no signal`. The actor may be inside a call.
    Received {
        /// The handler, by its name in `on_signal`.
        handler: String,
    }
}

/// Argument of F_SETLEASE.
#[expect(non_camel_case_types, reason = "the argument's own names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// A read lease: broken by who opens for writing or truncates.
    F_RDLCK,
    /// A write lease: broken by who opens at all.
    F_WRLCK,
    /// Lets go.
    F_UNLCK,
    /// UAPI under development.
    Number(i32),
}

/// The arguments that have a name, with their numbers (include/uapi/asm-generic/fcntl.h).
const LEASES: [(&str, Lease); 3] =
    [("F_RDLCK", Lease::F_RDLCK), ("F_WRLCK", Lease::F_WRLCK), ("F_UNLCK", Lease::F_UNLCK)];

impl Lease {
    /// The number that goes into the call.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::F_RDLCK => 0,
            Self::F_WRLCK => 1,
            Self::F_UNLCK => 2,
            Self::Number(number) => number,
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Lease {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Lease".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [{"enum": LEASES.map(|(name, _)| name)}, {"type": "integer", "format": "int32"}]})
    }
}

impl Serialize for Lease {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match LEASES.iter().find(|(_, lease)| lease == self) {
            Some((name, _)) => serializer.serialize_str(name),
            None => serializer.serialize_i32(self.number()),
        }
    }
}

impl<'de> Deserialize<'de> for Lease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;

        impl Visitor<'_> for NameOrNumber {
            type Value = Lease;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("F_RDLCK, F_WRLCK, F_UNLCK or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Lease, E> {
                let known = LEASES.iter().find(|(name, _)| *name == text);
                known
                    .map(|(_, lease)| *lease)
                    .ok_or_else(|| E::unknown_variant(text, &["F_RDLCK", "F_WRLCK", "F_UNLCK"]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Lease, E> {
                let number = i32::try_from(number);
                number.map(Lease::Number).map_err(|_| E::custom("a lease is a number of 32 bits"))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Lease, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }

        deserializer.deserialize_any(NameOrNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_a_name_or_a_number() {
        for (text, lease) in [("\"F_WRLCK\"", Lease::F_WRLCK), ("48", Lease::Number(48))] {
            assert_eq!(serde_json::from_str::<Lease>(text).unwrap(), lease);
            assert_eq!(serde_json::to_string(&lease).unwrap(), text);
        }
        for text in ["\"F_RDLOCK\"", "4294967296", "null", "1.5"] {
            assert!(serde_json::from_str::<Lease>(text).is_err(), "{text}");
        }
    }
}
