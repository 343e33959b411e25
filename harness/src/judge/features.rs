// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the guest has the features its kernel declares.
//!
//! A declaration decides by plan what applies; a probe of the guest can only take the verdict away. A
//! feature gets a probe by a fact in [`Hello`] and a line in [`probed`]; until then it is believed.

use holdfast_protocol::Hello;

use crate::plan::PlannedCase;

/// What the guest found out about a feature; `None` where it does not look.
fn probed(_hello: &Hello, _feature: &str) -> Option<bool> {
    None
}

/// A declared feature that the guest has found missing.
pub(super) fn unconfirmed(case: &PlannedCase, hello: &Hello) -> Option<String> {
    lacking(case, |feature| probed(hello, feature))
}

pub(super) fn lacking(case: &PlannedCase, probed: impl Fn(&str) -> Option<bool>) -> Option<String> {
    let missing = case.features.iter().find(|feature| probed(feature) == Some(false))?;
    Some(format!("{} declares the feature {missing}, and the guest does not have it", case.kernel))
}
