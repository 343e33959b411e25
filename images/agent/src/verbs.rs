// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verbs: the RDMA device of an actor, its memory regions and queue pairs, over `verbs.c`.
#![expect(unsafe_code, reason = "calls the C shim over libibverbs")]

use std::ffi::{CString, c_int};
use std::ptr;

use holdfast_protocol::{ASYNC_EVENTS, COMPLETION_STATUSES};
use nix::errno::Errno;

use crate::sys::{Mapping, Number};

/// How long a transfer may take before it counts as lost, in milliseconds. Well above the 1.6 s
/// after which rxe gives up on a peer that does not answer.
pub(crate) const TRANSFER_TIMEOUT_MS: i64 = 5_000;

#[repr(C)]
struct RawDevice {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawRegion {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawPair {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn hf_look_around();
    fn hf_open(name: *const libc::c_char, out: *mut *mut RawDevice) -> c_int;
    fn hf_close(device: *mut RawDevice) -> c_int;
    fn hf_cmd_fd(device: *mut RawDevice) -> c_int;
    fn hf_query_gid(device: *mut RawDevice, index: c_int, raw: *mut u8) -> c_int;
    fn hf_reg_mr(
        device: *mut RawDevice,
        address: *mut u8,
        length: usize,
        access: c_int,
        out: *mut *mut RawRegion,
        lkey: *mut u32,
        rkey: *mut u32,
    ) -> c_int;
    fn hf_dereg_mr(mr: *mut RawRegion) -> c_int;
    fn hf_create_qp(device: *mut RawDevice, out: *mut *mut RawPair, number: *mut u32) -> c_int;
    fn hf_destroy_qp(qp: *mut RawPair) -> c_int;
    fn hf_connect_qp(
        qp: *mut RawPair,
        gid_index: c_int,
        gid: *const u8,
        number: u32,
        their_psn: u32,
        our_psn: u32,
    ) -> c_int;
    fn hf_has_odp(device: *mut RawDevice, has: *mut c_int) -> c_int;
    fn hf_async_event(device: *mut RawDevice, kind: *mut c_int) -> c_int;
    fn hf_transfer(
        qp: *mut RawPair,
        kind: c_int,
        local: *mut u8,
        lkey: u32,
        length: u32,
        remote: u64,
        rkey: u32,
        timeout_ms: i64,
        status: *mut c_int,
    ) -> c_int;
    fn hf_receive(
        qp: *mut RawPair,
        mr: *mut RawRegion,
        offset: u64,
        length: u32,
        timeout_ms: i64,
        status: *mut c_int,
    ) -> c_int;
}

/// An open RDMA device with a protection domain. Lives as long as its
/// process: what it held is let go by the kernel, which is what scenarios look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device(*mut RawDevice);

/// A memory region of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    raw: *mut RawRegion,
    /// The key for local use.
    pub(crate) lkey: u32,
    /// The key that a peer needs.
    pub(crate) rkey: u32,
}

/// A queue pair of this process, with a completion queue of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuePair {
    raw: *mut RawPair,
    /// Its number, which the peer needs.
    pub(crate) number: u32,
}

/// Which way the bytes go, seen from this process; numbered as in `verbs.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// RDMA WRITE.
    Write = 0,
    /// RDMA READ.
    Read = 1,
    /// SEND, for which no region of the peer is named.
    Send = 2,
}

/// The remote end of a transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote {
    /// Address in the owner's region.
    pub(crate) address: u64,
    /// The region's key.
    pub(crate) rkey: u32,
}

fn check(err: c_int) -> Result<(), Errno> {
    if err == 0 { Ok(()) } else { Err(Errno::from_raw(err)) }
}

/// Finds the devices of this machine ahead, opening none: [`Device::open`] then need not.
pub(crate) fn look_around() {
    // SAFETY: no argument; called before this process has another thread.
    unsafe { hf_look_around() };
}

impl Device {
    /// Opens a device by name.
    ///
    /// # Errors
    /// ENODEV when there is none of that name; what libibverbs said otherwise.
    pub(crate) fn open(name: &str) -> Result<Self, Errno> {
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let mut raw = ptr::null_mut();
        // SAFETY: the name is terminated and `raw` is written on success only.
        check(unsafe { hf_open(name.as_ptr(), &raw mut raw) })?;
        Ok(Self(raw))
    }

    /// ibv_close_device(3), whatever is left in it. Nothing of it may be used afterwards.
    pub(crate) fn close(self) {
        // SAFETY: the device is open, and its caller forgets all that came of it.
        unsafe { hf_close(self.0) };
    }

    /// The uverbs file of the context (`ibv_context.cmd_fd`), which libibverbs goes on using.
    pub(crate) fn uverbs_fd(&self) -> Option<Number> {
        // SAFETY: the device is open; the number is only read.
        Number::of(unsafe { hf_cmd_fd(self.0) })
    }

    /// The GID at an index of port 1.
    ///
    /// # Errors
    /// What libibverbs said.
    pub(crate) fn gid(&self, index: u32) -> Result<[u8; 16], Errno> {
        let mut gid = [0u8; 16];
        let index = c_int::try_from(index).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the device is open; a GID has 16 bytes.
        check(unsafe { hf_query_gid(self.0, index, gid.as_mut_ptr()) })?;
        Ok(gid)
    }

    /// ibv_reg_mr(3) of a whole mapping with IBV_ACCESS_* bits.
    ///
    /// # Errors
    /// What the kernel said, EOPNOTSUPP for FS-DAX pages for example.
    pub(crate) fn register(&self, map: Mapping, access: i32) -> Result<Region, Errno> {
        let (mut raw, mut lkey, mut rkey) = (ptr::null_mut(), 0, 0);
        // SAFETY: the device is open. The kernel pins pages of this process for the region; Rust
        // holds no reference into a `Mapping`, so a device may write to it.
        check(unsafe {
            hf_reg_mr(self.0, map.start(), map.len(), access, &raw mut raw, &raw mut lkey, &raw mut rkey)
        })?;
        Ok(Region { raw, lkey, rkey })
    }

    /// Whether it faults pages in when they are used: on-demand paging (ibv_query_device_ex(3)).
    ///
    /// # Errors
    /// What libibverbs said.
    pub(crate) fn has_odp(&self) -> Result<bool, Errno> {
        let mut has: c_int = 0;
        // SAFETY: the device is open; the number is written on success only.
        check(unsafe { hf_has_odp(self.0, &raw mut has) })?;
        Ok(has != 0)
    }

    /// ibv_get_async_event(3), acknowledged: the name of the next event, without `IBV_EVENT_`. Waits for it.
    ///
    /// # Errors
    /// EINTR, and what else reading the asynchronous events of the context said.
    pub(crate) fn async_event(&self) -> Result<String, Errno> {
        let mut kind: c_int = -1;
        // SAFETY: the device is open; the number is written on success only.
        check(unsafe { hf_async_event(self.0, &raw mut kind) })?;
        Ok(named(&ASYNC_EVENTS, kind, "EVENT"))
    }

    /// A queue pair in state INIT.
    ///
    /// # Errors
    /// What libibverbs said.
    pub(crate) fn create_pair(&self) -> Result<QueuePair, Errno> {
        let (mut raw, mut number) = (ptr::null_mut(), 0);
        // SAFETY: the device is open; both results are written on success only.
        check(unsafe { hf_create_qp(self.0, &raw mut raw, &raw mut number) })?;
        Ok(QueuePair { raw, number })
    }
}

/// The name of a completion's status.
fn completed(result: c_int, status: c_int) -> Result<String, Errno> {
    match check(result) {
        Ok(()) => Ok(status_name(status)),
        Err(Errno::ETIMEDOUT) => Ok("TIMEOUT".to_owned()),
        Err(errno) => Err(errno),
    }
}

impl Region {
    /// ibv_dereg_mr(3).
    ///
    /// # Errors
    /// Its errno; the region is gone for us all the same.
    pub(crate) fn deregister(self) -> Result<(), Errno> {
        // SAFETY: a live region, given up with this call.
        check(unsafe { hf_dereg_mr(self.raw) })
    }
}

impl QueuePair {
    /// One transfer between all of `local` and a peer's region, and the name of its completion's
    /// status without `IBV_WC_`; `TIMEOUT` when none came within [`TRANSFER_TIMEOUT_MS`].
    ///
    /// # Errors
    /// The errno of posting it.
    pub(crate) fn transfer(
        self,
        direction: Direction,
        local: (Mapping, &Region),
        len: u32,
        remote: Remote,
    ) -> Result<String, Errno> {
        let (map, region) = local;
        if len as usize > map.len() {
            return Err(Errno::EFAULT);
        }
        let mut status: c_int = -1;
        // SAFETY: pair and region are live handles of libibverbs, the range lies in the
        // mapping that the region was made of.
        let result = unsafe {
            hf_transfer(
                self.raw,
                direction as c_int,
                map.start(),
                region.lkey,
                len,
                remote.address,
                remote.rkey,
                TRANSFER_TIMEOUT_MS,
                &raw mut status,
            )
        };
        completed(result, status)
    }

    /// Receives what a peer sends into a part of a region of ours, and the name of the completion's status.
    ///
    /// # Errors
    /// The errno of posting it; EFAULT when the part is not within the region.
    pub(crate) fn receive(self, region: &Region, at: u64, len: u32) -> Result<String, Errno> {
        let mut status: c_int = -1;
        // SAFETY: pair and region are live handles of libibverbs, which checks the part.
        let result = unsafe { hf_receive(self.raw, region.raw, at, len, TRANSFER_TIMEOUT_MS, &raw mut status) };
        completed(result, status)
    }

    /// Connects the pair with a peer's: RTR, then RTS.
    ///
    /// # Errors
    /// What libibverbs said.
    pub(crate) fn connect(
        &self,
        gid_index: u32,
        gid: &[u8; 16],
        number: u32,
        psn: (u32, u32),
    ) -> Result<(), Errno> {
        let (theirs, ours) = psn;
        let gid_index = c_int::try_from(gid_index).map_err(|_| Errno::EINVAL)?;
        // SAFETY: a live pair; a GID has 16 bytes.
        check(unsafe { hf_connect_qp(self.raw, gid_index, gid.as_ptr(), number, theirs, ours) })
    }

    /// ibv_destroy_qp(3).
    pub(crate) fn destroy(self) {
        // SAFETY: a live pair, given up with this call.
        let _ = unsafe { hf_destroy_qp(self.raw) };
    }
}

fn status_name(status: c_int) -> String {
    named(&COMPLETION_STATUSES, status, "STATUS")
}

/// A number of verbs.h by its name there; one that has none by itself.
fn named(names: &[&str], number: c_int, what: &str) -> String {
    let name = usize::try_from(number).ok().and_then(|at| names.get(at));
    name.map_or_else(|| format!("{what}_{number}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_numbers_of_verbs_h() {
        assert_eq!(status_name(0), "SUCCESS");
        assert_eq!(status_name(5), "WR_FLUSH_ERR");
        assert_eq!(status_name(10), "REM_ACCESS_ERR");
        assert_eq!(status_name(12), "RETRY_EXC_ERR");
        assert_eq!(status_name(99), "STATUS_99");
        assert_eq!(named(&ASYNC_EVENTS, 10, "EVENT"), "PORT_ERR");
        assert_eq!(named(&ASYNC_EVENTS, 16, "EVENT"), "QP_LAST_WQE_REACHED");
    }
}
