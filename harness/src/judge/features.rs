// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the guest has the features its kernel declares.
//!
//! A declaration decides by plan what applies; the guest's own look (images/agent/src/boot/features.rs) can
//! only take the verdict away. A feature that it does not look for is believed.

use holdfast_protocol::Hello;

use crate::plan::PlannedCase;

/// A declared feature that the guest has found missing.
pub(super) fn unconfirmed(case: &PlannedCase, hello: &Hello) -> Option<String> {
    let missing = case.features.iter().find(|feature| hello.features.get(*feature) == Some(&false))?;
    Some(format!("{} declares the feature {missing}, and the guest does not have it", case.kernel))
}
