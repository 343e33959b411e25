// SPDX-License-Identifier: MIT OR Apache-2.0
//! After the last step: end the actors, then consult the standing oracles, in the order in which
//! [`Oracles`] lists them.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use holdfast_protocol::{Leaks, Oracles, Place, StuckTask, UmountFact};
use nix::errno::Errno;

use super::cast::wait_readable;
use super::{Before, Session};
use crate::boot::filesystems;
use crate::clock::now_ms;
use crate::oracles::Eyes;
use crate::progress::Limit;
use crate::{procfs, sys};

/// When an umount(2) that has not returned counts as one that hangs.
const UMOUNT_TIMEOUT: Duration = Duration::from_secs(20);

/// How often something that settles, and that nothing tells of, is looked at.
const STEP: Duration = Duration::from_millis(4);

impl Session {
    /// Ends everything and reports what the oracles see.
    pub(super) fn finish(&mut self, settle_ms: u64) -> Result<Oracles, String> {
        let Before { oracles: mut found, mark } = self.before.take().ok_or("nothing was prepared")?;
        let settle = Duration::from_millis(settle_ms);
        // What was killed and not waited for has gone by now; after this there are no regions.
        self.look_everywhere("the last step", true);
        self.end_actors(&self.progress.within(settle));
        let ended_ms = now_ms();
        if self.stage.in_guest {
            let eyes = self.eyes.as_ref().map_err(|why| why.clone())?;
            count_what_is_left(eyes, &mut found, &self.progress.within(settle))?;
            found.leases_left = eyes.leases()?;
        }
        found.stuck = self.stuck();
        self.end_keepers(settle);
        let devices: Vec<Place> = self.stage.devices.keys().copied().collect();
        found.damage = self.damage();
        found.umount = devices.iter().map(|place| self.umount(*place, settle)).collect();
        for place in std::mem::take(&mut self.corrupt) {
            if let Some(device) = self.stage.devices.get(&place) {
                filesystems::corrupt(place, device)
                    .map_err(|error| format!("corrupting {place:?}: {error}"))?;
            }
        }
        // Behind umount(2): until then the inodes of the case may hold what nobody lets go of.
        found.leaks = match &mut self.kmemleak {
            Ok(None) => Leaks::NotLookedFor,
            Ok(Some(kmemleak)) => kmemleak.leaks(ended_ms, &self.progress),
            Err(why) => Leaks::Unknown { why: why.clone() },
        };
        if self.stage.in_guest {
            let eyes = self.eyes.as_mut().map_err(|why| why.clone())?;
            (found.log, found.log_mark_found) = eyes.log_since(&mark)?;
            found.taint.1 = eyes.taint()?;
        }
        Ok(found)
    }

    /// SIGKILL to all actors; waits until they are gone or the time is over. Spare ones stay: they hold
    /// nothing, and go with the machine.
    pub(super) fn end_actors(&mut self, limit: &Limit) {
        self.cast.reap();
        for player in self.cast.players.values().filter(|player| player.end.is_none()) {
            let _ = sys::kill(player.pid(), libc::SIGKILL);
        }
        self.cast.until_ended(limit);
        // What programs have left that actors did not come to wait for.
        loop {
            let left = self.others();
            for pid in &left {
                let _ = sys::kill(*pid, libc::SIGKILL);
            }
            if left.is_empty() || limit.is_over() {
                break;
            }
            sleep(STEP);
            self.cast.reap();
        }
    }

    /// What programs have left of themselves. To look for it costs a case as much as an oracle.
    fn others(&self) -> Vec<i32> {
        if self.stage.in_guest && self.ran_programs { procfs::others() } else { Vec::new() }
    }

    /// SIGKILL to the keepers, whose holds the oracles have seen.
    fn end_keepers(&mut self, settle: Duration) {
        for pid in std::mem::take(&mut self.keepers) {
            let Ok(pidfd) = sys::pidfd_open(pid) else { continue };
            let _ = sys::kill(pid, libc::SIGKILL);
            wait_readable(pidfd.as_fd(), &self.progress.within(settle));
        }
        self.cast.reap();
    }

    fn stuck(&mut self) -> Vec<StuckTask> {
        self.cast.reap();
        let alive = self.cast.players.iter().filter(|(_, player)| player.end.is_none());
        let programs = self.others();
        let programs = programs.into_iter().map(|pid| (format!("program {pid}"), pid));
        alive
            .map(|(name, player)| (name.clone(), player.tid()))
            .chain(programs)
            .map(|(actor, pid)| {
                let procfs::Whereabouts { state, wchan, stack } = procfs::whereabouts(pid);
                StuckTask { actor, state, wchan, stack }
            })
            .collect()
    }

    /// umount(2). EBUSY is tried again until the time is over: a killed actor's last references may
    /// go a little later than it.
    fn umount(&self, on: Place, settle: Duration) -> UmountFact {
        let Some(umounter) = self.umounters.get(&on) else {
            return UmountFact { on, errno: Errno::ENOENT as i32 };
        };
        let busy = self.progress.within(settle);
        loop {
            let errno = umounter.call(&self.progress.within(UMOUNT_TIMEOUT));
            if errno != Errno::EBUSY as i32 || busy.is_over() {
                return UmountFact { on, errno };
            }
            sleep(STEP);
        }
    }
}

/// Counts pins and regions until none is left over or the time is over: they may be let go by deferred work.
fn count_what_is_left(eyes: &Eyes, found: &mut Oracles, limit: &Limit) -> Result<(), String> {
    let before = found.pins_before.acquired.wrapping_sub(found.pins_before.released);
    loop {
        found.pins_after = eyes.pins()?;
        found.regions_left = eyes.regions()?;
        let after = found.pins_after.acquired.wrapping_sub(found.pins_after.released);
        if (before == after && found.regions_left == 0) || limit.is_over() {
            return Ok(());
        }
        sleep(STEP);
    }
}
