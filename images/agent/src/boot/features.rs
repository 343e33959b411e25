// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this guest has what a kernel can declare as a feature: what can be asked of the running kernel
//! is asked, once, before the first case.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use holdfast_protocol::{Place, Provider};

use crate::session::Stage;
use crate::sys::ioctl_bytes;
use crate::verbs::Device;

/// `XFS_IOC_FSGEOMETRY`: `_IOR('X', 126, struct xfs_fsop_geom)`, which is 256 bytes (fs/xfs/libxfs/xfs_fs.h).
const XFS_IOC_FSGEOMETRY: u64 = 0x8100_587e;
const GEOMETRY_BYTES: usize = 256;
/// Where its `flags` are.
const FLAGS_AT: usize = 92;
/// `XFS_FSOP_GEOM_FLAGS_EXCHANGE_RANGE`.
const EXCHANGE_RANGE: u32 = 1 << 24;

/// The features that were looked for; one that cannot be asked about is not among them.
pub(super) fn probe(stage: &Stage) -> BTreeMap<String, bool> {
    let rxe = stage.rdma.iter().find(|link| link.provider == Provider::Rxe);
    let odp = rxe.and_then(|link| has_odp(&link.device));
    let exchange = stage.places.get(&Place::Xfs).and_then(|folder| exchanges(folder));
    let found = [("odp", odp), ("xfs-exchange", exchange)];
    found.into_iter().filter_map(|(name, found)| Some((name.to_owned(), found?))).collect()
}

/// The device faults pages in when they are used (ibv_query_device_ex(3), `odp_caps`).
fn has_odp(name: &str) -> Option<bool> {
    let device = Device::open(name).ok()?;
    let odp = device.has_odp().ok();
    device.close();
    odp
}

/// XFS was made with the feature without which it refuses to exchange ranges.
fn exchanges(folder: &Path) -> Option<bool> {
    let mut geometry = vec![0; GEOMETRY_BYTES];
    ioctl_bytes(File::open(folder).ok()?.as_fd(), XFS_IOC_FSGEOMETRY, &mut geometry).ok()?;
    let flags = geometry.get(FLAGS_AT..FLAGS_AT + 4)?;
    Some(u32::from_ne_bytes(flags.try_into().ok()?) & EXCHANGE_RANGE != 0)
}
