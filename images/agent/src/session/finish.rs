// SPDX-License-Identifier: MIT OR Apache-2.0
//! After the last step: end the actors, then consult the standing oracles, in the order in which
//! [`Oracles`] lists them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use holdfast_protocol::{FsckFact, Oracles, Outcome, Place, StuckTask, UmountFact};
use nix::errno::Errno;

use super::{Before, Session};
use crate::boot::filesystems;
use crate::{oracles, procfs, sys};

/// When an umount(2) that has not returned counts as one that hangs.
const UMOUNT_TIMEOUT: Duration = Duration::from_secs(20);

/// How often something that settles is looked at.
const STEP: Duration = Duration::from_millis(4);

impl Session {
    /// Ends everything and reports what the oracles see.
    pub(super) fn finish(&mut self, settle_ms: u64) -> Result<Oracles, String> {
        let Before { oracles: mut found, mark } = self.before.take().ok_or("nothing was prepared")?;
        let settle = Duration::from_millis(settle_ms);
        self.end_actors(settle);
        if self.stage.in_guest {
            let until = Instant::now() + settle;
            // Regions and their pins may be let go by deferred work.
            loop {
                found.pins_after = oracles::pins()?;
                found.regions_left = self.regions_left()?;
                let before = found.pins_before.acquired.wrapping_sub(found.pins_before.released);
                let after = found.pins_after.acquired.wrapping_sub(found.pins_after.released);
                if (before == after && found.regions_left == 0) || Instant::now() >= until {
                    break;
                }
                sleep(STEP);
            }
            found.leases_left = oracles::leases()?;
        }
        found.stuck = self.stuck();
        for pid in std::mem::take(&mut self.keepers) {
            let _ = sys::kill(pid, libc::SIGKILL);
            let until = Instant::now() + settle;
            while self.cast.end_of(pid).is_none() && Instant::now() < until {
                sleep(STEP);
            }
        }
        let devices: Vec<Place> = self.stage.devices.keys().copied().collect();
        found.umount = devices.iter().map(|place| self.umount(*place, settle)).collect();
        for place in std::mem::take(&mut self.corrupt) {
            if let Some(device) = self.stage.devices.get(&place) {
                filesystems::corrupt(place, device)
                    .map_err(|error| format!("corrupting {place:?}: {error}"))?;
            }
        }
        found.fsck = found.umount.iter().filter_map(|umount| self.fsck(umount)).collect();
        if self.stage.in_guest {
            (found.log, found.log_mark_found) = oracles::log_since(&mark)?;
            found.taint.1 = oracles::taint()?;
        }
        Ok(found)
    }

    fn regions_left(&self) -> Result<u64, String> {
        if self.stage.rdma.is_none() {
            return Ok(0);
        }
        crate::netlink::regions().map_err(|errno| format!("counting memory regions: {errno}"))
    }

    /// SIGKILL to all actors; waits until they are gone or the time is over.
    pub(super) fn end_actors(&mut self, settle: Duration) {
        self.cast.reap();
        for player in self.cast.players.values().filter(|player| player.end.is_none()) {
            let _ = sys::kill(player.pid, libc::SIGKILL);
        }
        let until = Instant::now() + settle;
        loop {
            self.cast.reap();
            if self.cast.players.values().all(|player| player.end.is_some()) || Instant::now() >= until {
                return;
            }
            sleep(STEP);
        }
    }

    fn stuck(&mut self) -> Vec<StuckTask> {
        self.cast.reap();
        let alive = self.cast.players.iter().filter(|(_, player)| player.end.is_none());
        alive
            .map(|(name, player)| {
                let procfs::Whereabouts { state, wchan, stack } = procfs::whereabouts(player.pid);
                StuckTask { actor: name.clone(), state, wchan, stack }
            })
            .collect()
    }

    /// umount(2). EBUSY is tried again until the time is over: a killed actor's last references may
    /// go a little later than it.
    fn umount(&mut self, on: Place, settle: Duration) -> UmountFact {
        let Some(folder) = self.stage.places.get(&on).cloned() else {
            return UmountFact { on, errno: Errno::ENOENT as i32 };
        };
        let until = Instant::now() + settle;
        loop {
            let errno = self.umount_once(&folder);
            if errno != Errno::EBUSY as i32 || Instant::now() >= until {
                return UmountFact { on, errno };
            }
            sleep(STEP);
        }
    }

    /// In a process of its own, so that one that hangs is a result: ETIMEDOUT.
    fn umount_once(&mut self, folder: &Path) -> i32 {
        let spawned = std::env::current_exe()
            .and_then(|program| Command::new(program).arg("umount").arg(folder).stdin(Stdio::null()).spawn());
        let Ok(child) = spawned else { return Errno::EAGAIN as i32 };
        let pid = child.id().cast_signed();
        let until = Instant::now() + UMOUNT_TIMEOUT;
        loop {
            match self.cast.end_of(pid) {
                Some(Outcome::Exited(errno)) => return errno,
                Some(_) => return Errno::EINTR as i32,
                None if Instant::now() >= until => return Errno::ETIMEDOUT as i32,
                None => sleep(STEP),
            }
        }
    }

    fn fsck(&self, umount: &UmountFact) -> Option<FsckFact> {
        let device = self.stage.devices.get(&umount.on)?;
        if umount.errno != 0 {
            let output = "not run: the file system could not be unmounted".to_owned();
            let command = filesystems::check_command(umount.on, device).join(" ");
            return Some(FsckFact { on: umount.on, command, status: None, output });
        }
        Some(filesystems::check(umount.on, device))
    }
}
