// SPDX-License-Identifier: MIT OR Apache-2.0
//! QMP, as a courtesy: it asks QEMU to end, and where a hanging guest stands. No verdict depends
//! on it; an event the crate does not know ends the stream, and that must not kill a run.

use std::time::Duration;

use qapi::futures::{QapiService, QmpStreamTokio};
use tokio::io::WriteHalf;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A negotiated connection.
pub(super) struct Qmp {
    service: QapiService<QmpStreamTokio<WriteHalf<UnixStream>>>,
    /// No command completes unless the events are polled.
    events: JoinHandle<()>,
}

/// QEMU answers in microseconds unless it hangs.
const PATIENCE: Duration = Duration::from_secs(1);

impl Qmp {
    /// Negotiates on a connection QEMU made; `None` when that fails.
    pub(super) async fn open(stream: UnixStream) -> Option<Self> {
        let (read, write) = tokio::io::split(stream);
        let negotiation = QmpStreamTokio::open_split(read, write).await.ok()?;
        let (service, events) = negotiation.negotiate().await.ok()?.spawn_tokio();
        Some(Self { service, events })
    }

    /// Asks QEMU to end. A reset of the connection is its way to say yes.
    pub(super) async fn quit(&self) {
        let _ = timeout(PATIENCE, self.service.execute(qapi::qmp::quit {})).await;
    }

    /// What QEMU says of the guest: `running`, `paused`, `guest-panicked`.
    pub(super) async fn status(&self) -> Option<String> {
        let answer = timeout(PATIENCE, self.service.execute(qapi::qmp::query_status {})).await.ok()?.ok()?;
        Some(format!("{:?}", answer.status).to_lowercase())
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.events.abort();
    }
}
