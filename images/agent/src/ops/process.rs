// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on processes.

use crate::actor::{Done, Stop, not_issued};
use crate::wire::Aid;
use crate::{signals, sys};

/// kill(2) of another actor, or of this one.
pub(crate) fn kill(aid: &Aid, signal: &str) -> Result<Done, Stop> {
    let pid = aid.pid.ok_or_else(|| not_issued("the actor to kill is gone"))?;
    let number = signals::number(signal).ok_or_else(|| not_issued(format!("{signal} is no signal")))?;
    sys::kill(pid, number)?;
    Ok(Done::default())
}

/// _exit(2).
pub(crate) fn exit(code: u8) -> ! {
    sys::exit_now(i32::from(code))
}
