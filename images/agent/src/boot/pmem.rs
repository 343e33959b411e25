// SPDX-License-Identifier: MIT OR Apache-2.0
//! NVDIMMs without labels made into fsdax and devdax namespaces, through sysfs.
//!
//! What `ndctl create-namespace -M mem` does: the region's seed device (`pfn_seed`, `dax_seed`) is
//! given a UUID, an alignment, a place for `struct page` (RAM) and the raw namespace, then bound to
//! its driver, which writes an info block. At the next boot the kernel finds that block by itself
//! (drivers/nvdimm/pfn_devs.c nd_pfn_probe(), dax_devs.c nd_dax_probe()).

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_protocol::{FSDAX_ALIGN, Place};

use super::PLACES;

const DEVICES: &str = "/sys/bus/nd/devices";
const DRIVERS: &str = "/sys/bus/nd/drivers";

/// 4 KiB: lets a scenario map any number of pages of the device.
const DEVDAX_ALIGN: u64 = 4096;

/// One NVDIMM and what it is to become.
#[derive(Clone, Debug)]
pub(crate) struct Dimm {
    /// What it is to become.
    pub(crate) place: Place,
    /// `region0`.
    region: String,
}

/// A namespace that is ready.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// The device node.
    pub(crate) node: PathBuf,
    /// Where its first byte lies within the NVDIMM.
    pub(crate) data_at: u64,
    /// It was found so, with whatever it holds.
    pub(crate) was_there: bool,
}

/// How a place becomes what it is.
struct Mode {
    /// Attribute of the region that names the seed device.
    seed: &'static str,
    /// Driver that the seed device is bound to.
    driver: &'static str,
    align: u64,
}

impl Mode {
    const fn of(place: Place) -> Self {
        match place {
            Place::Ext4 | Place::Xfs => Self { seed: "pfn_seed", driver: "nd_pmem", align: FSDAX_ALIGN },
            Place::Devdax => Self { seed: "dax_seed", driver: "dax_pmem", align: DEVDAX_ALIGN },
        }
    }
}

/// The NVDIMMs of this machine by physical address, which is the order QEMU was given them in.
pub(crate) fn find() -> Vec<Dimm> {
    // Reading it waits until every device of the bus has been probed.
    let _ = fs::read_to_string(format!("{DEVICES}/ndbus0/wait_probe"));
    let mut regions: Vec<(u64, String)> = names(Path::new(DEVICES))
        .into_iter()
        .filter(|name| name.starts_with("region"))
        .map(|name| (resource(&name).unwrap_or(u64::MAX), name))
        .collect();
    regions.sort();
    regions.into_iter().zip(PLACES).map(|((_, region), place)| Dimm { place, region }).collect()
}

impl Dimm {
    /// Makes the namespace, or recognises one that was made at an earlier boot.
    pub(crate) fn prepare(&self) -> Result<Prepared, String> {
        let mode = Mode::of(self.place);
        let region = Path::new(DEVICES).join(&self.region);
        let namespace = names(&region)
            .into_iter()
            .find(|name| name.starts_with("namespace"))
            .ok_or_else(|| format!("{} has no namespace", self.region))?;
        let holder = read(&Path::new(DEVICES).join(&namespace).join("holder")).unwrap_or_default();
        if !holder.is_empty() {
            return self.prepared(&holder, true);
        }
        let seed = read(&region.join(mode.seed))?;
        if seed.is_empty() {
            return Err(format!("{} has no {}: the kernel lacks it", self.region, mode.seed));
        }
        let nd_pmem = Path::new(DRIVERS).join("nd_pmem");
        if nd_pmem.join(&namespace).exists() {
            write(&nd_pmem.join("unbind"), &namespace)?;
        }
        let device = Path::new(DEVICES).join(&seed);
        write(&device.join("uuid"), &read(Path::new("/proc/sys/kernel/random/uuid"))?)?;
        write(&device.join("mode"), "ram")?;
        write(&device.join("align"), &mode.align.to_string())?;
        write(&device.join("namespace"), &namespace)?;
        write(&Path::new(DRIVERS).join(mode.driver).join("bind"), &seed)?;
        self.prepared(&seed, false)
    }

    fn prepared(&self, device: &str, was_there: bool) -> Result<Prepared, String> {
        let (first, begin) = (resource(device)?, resource(&self.region)?);
        let data_at = first
            .checked_sub(begin)
            .ok_or_else(|| format!("{device} at {first:#x} is not in {} at {begin:#x}", self.region))?;
        Ok(Prepared { node: self.node(device)?, data_at, was_there })
    }

    /// The node of a bound pfn or dax device.
    fn node(&self, device: &str) -> Result<PathBuf, String> {
        let folder = Path::new(DEVICES).join(device);
        let name = match self.place {
            Place::Ext4 | Place::Xfs => names(&folder.join("block")).into_iter().next(),
            // Below the dax device stands its region, which has the same form of name as the device;
            // the character device is the one that the dax bus knows.
            Place::Devdax => {
                let prefix = format!("dax{}.", self.region.trim_start_matches("region"));
                names(Path::new("/sys/bus/dax/devices")).into_iter().find(|name| name.starts_with(&prefix))
            }
        };
        let name =
            name.ok_or_else(|| format!("{device} in {} is not a {:?} device", self.region, self.place))?;
        let node = Path::new("/dev").join(name);
        if node.exists() { Ok(node) } else { Err(format!("{} did not appear", node.display())) }
    }
}

/// Physical address of a device on the NVDIMM bus. Of a pfn or dax device it is that of its data: behind the
/// info block and the page structures (drivers/nvdimm/pfn_devs.c resource_show()).
fn resource(device: &str) -> Result<u64, String> {
    let text = read(&Path::new(DEVICES).join(device).join("resource"))?;
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| format!("resource of {device}: {text:?} is no address"))
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn read(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    fs::write(path, value).map_err(|error| format!("{value} to {}: {error}", path.display()))
}
